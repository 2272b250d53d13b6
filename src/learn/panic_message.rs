//! The message of a panic.

use std::any::Any;

/// What a panic says, if it says something.
pub fn of(panic: &(dyn Any + Send)) -> Option<&str> {
    panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied())
}
