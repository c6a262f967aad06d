// What Debian's wine has not got of the libraries that Windows brings: compiled twice, with one of the names each.
#include <windows.h>

#ifdef BCRYPTPRIMITIVES
BOOLEAN NTAPI SystemFunction036(PVOID, ULONG);
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE to, SIZE_T length) { return SystemFunction036(to, (ULONG)length); }
#else
__declspec(dllexport) BOOL WINAPI RoOriginateErrorW(HRESULT error, UINT length, const WCHAR *message) { return FALSE; }
#endif
