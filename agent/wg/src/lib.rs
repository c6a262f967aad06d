//! WireGuard devices, addresses and routes.
