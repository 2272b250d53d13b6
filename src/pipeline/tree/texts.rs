//! Keeps the texts that loops make, so that nodes can borrow them like those of the sources.

use std::cell::{Cell, OnceCell};

/// The number of texts in the first block; each further block has twice as many.
const FIRST: usize = 64;

type Block = Box<[OnceCell<Box<str>>]>;

/// Texts that stay where they are while more are added.
#[derive(Debug, Default)]
pub struct Texts {
    blocks: [OnceCell<Block>; 32],
    count: Cell<usize>,
}

impl Texts {
    /// Keeps a text.
    pub(super) fn keep(&self, text: String) -> &str {
        let number = self.count.replace(self.count.get() + 1);
        let block = (number / FIRST + 1).ilog2() as usize;
        let length = FIRST << block;
        let cells = self.blocks[block].get_or_init(|| (0..length).map(|_| OnceCell::new()).collect());
        cells[number + FIRST - length].get_or_init(|| text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stay_while_more_are_added() {
        let texts = Texts::default();
        let kept: Vec<&str> = (0..1000).map(|i| texts.keep(i.to_string())).collect();
        assert!(kept.iter().enumerate().all(|(i, text)| *text == i.to_string()));
    }
}
