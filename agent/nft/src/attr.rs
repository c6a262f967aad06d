//! Netlink attributes (TLVs, `include/uapi/linux/netlink.h`): a writer and a bounded reader.
//!
//! nf_tables writes its numbers in network byte order; headers and lengths are in the machine's own.

/// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER` are hints and no part of the type.
const TYPE_MASK: u16 = 0x3fff;

/// A list of attributes under construction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttrBuf(Vec<u8>);

impl AttrBuf {
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends `value` as it is, padded to four bytes.
    ///
    /// # Panics
    /// If the value does not fit a netlink attribute (65 531 bytes); our own values are all far smaller.
    pub fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let len = u16::try_from(value.len() + 4).expect("our attributes are small");
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub fn u8(self, kind: u16, value: u8) -> Self {
        self.bytes(kind, &[value])
    }

    pub fn u16(self, kind: u16, value: u16) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub fn u64(self, kind: u16, value: u64) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// A text with the NUL that the kernel expects.
    pub fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    pub fn nest(self, kind: u16, inner: AttrBuf) -> Self {
        self.bytes(kind | libc::NLA_F_NESTED as u16, &inner.0)
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

/// Why bytes are no list of attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttrError {
    #[error("an attribute is longer than what holds it, or shorter than its header")]
    Length,
    #[error("attribute {0} has the wrong size")]
    Size(u16),
    #[error("attribute {0} is missing")]
    Missing(u16),
    #[error("attribute {0} is no text")]
    Text(u16),
    #[error("a message is shorter than its header")]
    Header,
}

/// One attribute as received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr<'a> {
    pub kind: u16,
    pub value: &'a [u8],
}

/// Reads attributes one after the other and ends after the first error.
#[derive(Debug, Clone)]
pub struct Attrs<'a>(&'a [u8]);

impl<'a> Attrs<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The first attribute of this kind, if there is one before any malformed one.
    pub fn find(&self, kind: u16) -> Option<Attr<'a>> {
        self.clone().map_while(Result::ok).find(|attr| attr.kind == kind)
    }

    /// The first attribute of this kind.
    pub fn need(&self, kind: u16) -> Result<Attr<'a>, AttrError> {
        for attr in self.clone() {
            let attr = attr?;
            if attr.kind == kind {
                return Ok(attr);
            }
        }
        Err(AttrError::Missing(kind))
    }

    /// A text that may be missing.
    pub fn text(&self, kind: u16) -> Result<Option<&'a str>, AttrError> {
        self.find(kind).map(|attr| attr.text()).transpose()
    }

    /// A number that may be missing.
    pub fn u32(&self, kind: u16) -> Result<Option<u32>, AttrError> {
        self.find(kind).map(|attr| attr.u32()).transpose()
    }

    /// A number that may be missing.
    pub fn u64(&self, kind: u16) -> Result<Option<u64>, AttrError> {
        self.find(kind).map(|attr| attr.u64()).transpose()
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = Result<Attr<'a>, AttrError>;

    fn next(&mut self) -> Option<Self::Item> {
        // Fewer bytes than a header are padding.
        let (len, rest) = self.0.split_first_chunk::<2>()?;
        let (kind, _) = rest.split_first_chunk::<2>()?;
        let len = usize::from(u16::from_ne_bytes(*len));
        let Some(value) = self.0.get(4..len) else {
            self.0 = &[];
            return Some(Err(AttrError::Length));
        };
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Ok(Attr { kind: u16::from_ne_bytes(*kind) & TYPE_MASK, value }))
    }
}

impl<'a> Attr<'a> {
    pub fn array<const N: usize>(&self) -> Result<[u8; N], AttrError> {
        self.value.try_into().map_err(|_| AttrError::Size(self.kind))
    }

    pub fn u8(&self) -> Result<u8, AttrError> {
        self.array().map(|[byte]| byte)
    }

    pub fn u16(&self) -> Result<u16, AttrError> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&self) -> Result<u32, AttrError> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn u64(&self) -> Result<u64, AttrError> {
        self.array().map(u64::from_be_bytes)
    }

    /// The text up to its NUL, or to the end where there is none.
    pub fn text(&self) -> Result<&'a str, AttrError> {
        let end = self.value.iter().position(|byte| *byte == 0).unwrap_or(self.value.len());
        std::str::from_utf8(&self.value[..end]).map_err(|_| AttrError::Text(self.kind))
    }

    pub fn nested(&self) -> Attrs<'a> {
        Attrs::new(self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_read_back_as_written() {
        let buf = AttrBuf::new().u8(1, 7).text(2, "lane").nest(3, AttrBuf::new().u64(4, 1 << 40)).u16(5, 0x1234);
        let attrs = Attrs::new(buf.as_slice());
        assert_eq!(attrs.need(1).and_then(|attr| attr.u8()), Ok(7));
        assert_eq!(attrs.text(2), Ok(Some("lane")));
        assert_eq!(attrs.need(3).and_then(|attr| attr.nested().need(4)).and_then(|attr| attr.u64()), Ok(1 << 40));
        assert_eq!(attrs.need(5).and_then(|attr| attr.u16()), Ok(0x1234));
        assert_eq!(attrs.need(6), Err(AttrError::Missing(6)));
        assert_eq!(attrs.count(), 4);
    }

    #[test]
    fn lengths_that_lie_end_the_list_with_an_error() {
        for bytes in [&[3, 0, 1, 0][..], &[0, 0, 1, 0], &[9, 0, 1, 0, 1, 2, 3, 4], &[0xff, 0xff, 1, 0, 0, 0, 0, 0]] {
            let all: Vec<_> = Attrs::new(bytes).collect();
            assert_eq!(all, [Err(AttrError::Length)], "{bytes:?}");
        }
        assert_eq!(Attrs::new(&[1, 2, 3]).count(), 0);
    }
}
