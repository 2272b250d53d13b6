//! RON text → plain data. No file but the pipeline file is read, and no tensor is known here.

pub mod kind;
