//! Memory for the pixels of a batch. The reader of batches may choose it: a GPU copies faster from memory that it knows.

use std::{
    fmt,
    ops::{Deref, DerefMut},
};

/// Memory that threads fill and a reader reads. It must not move its bytes.
pub trait Memory: AsRef<[u8]> + AsMut<[u8]> + Send {}

impl<T: AsRef<[u8]> + AsMut<[u8]> + Send> Memory for T {}

/// Some bytes, wherever they are.
pub struct Bytes(Box<dyn Memory>);

impl Bytes {
    /// The bytes of `memory`.
    pub fn new(memory: impl Memory + 'static) -> Self {
        Bytes(Box::new(memory))
    }

    /// So many zeros, in ordinary memory.
    pub fn zeros(count: usize) -> Self {
        vec![0; count].into()
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::new(bytes)
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

impl DerefMut for Bytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        (*self.0).as_mut()
    }
}

impl Default for Bytes {
    fn default() -> Self {
        vec![].into()
    }
}

impl Clone for Bytes {
    fn clone(&self) -> Self {
        self.to_vec().into()
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Bytes {}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}
