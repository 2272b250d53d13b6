//! Which of the processes that compute a stage together this one is.

use std::{ffi::OsString, path::PathBuf};

/// One of the processes that compute something together.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its number, from 0. The first starts the others, and writes all files.
    pub number: usize,
    /// How many there are.
    pub of: usize,
    /// A folder that all of them see, where they find one another.
    pub folder: PathBuf,
    /// The arguments that start the others, before the option for its number and that number.
    pub arguments: Vec<OsString>,
}

impl Member {
    /// The device of this process, given that of the first: they take one GPU after the other.
    pub fn device(&self, first: &str) -> String {
        match first.strip_prefix("cuda:").and_then(|number| number.parse::<usize>().ok()) {
            Some(number) => format!("cuda:{}", number + self.number),
            None => first.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_take_one_gpu_after_the_other() {
        let member = Member { number: 3, of: 4, folder: PathBuf::new(), arguments: vec![] };
        assert_eq!(
            ["cuda:0", "cuda:2", "cpu", "auto"].map(|first| member.device(first)),
            ["cuda:3", "cuda:5", "cpu", "auto"]
        );
    }
}
