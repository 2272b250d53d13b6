//! Parts of a network whose activations are not kept for the gradient, but computed again.

use super::{check, pointers};
use anyhow::Result;
use std::{
    any::Any,
    ffi::{CString, c_char, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    slice,
};
use tch::Tensor;
use torch_sys::C_tensor;

/// A part: its inputs, and whether it runs again, for the gradient.
type Part = Box<dyn Fn(&[Tensor], bool) -> Tensor + Send>;

type Call = unsafe extern "C" fn(*mut c_void, *const *const C_tensor, usize, bool, *mut *mut C_tensor) -> *mut c_char;

unsafe extern "C" {
    fn caco_recompute(
        inputs: *const *const C_tensor,
        count: usize,
        part: *mut c_void,
        call: Call,
        drop: unsafe extern "C" fn(*mut c_void),
        result: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// What `part` makes of `inputs`, with the gradient for those that want one. Besides `part` they are all that is kept for it: when
/// it is asked for, `part` runs a second time on the same values, perhaps in another thread, and must compute the same
/// (Chen et al. 2016, arXiv 1604.06174).
///
/// An error where the part panics.
pub fn recompute(inputs: &[Tensor], part: impl Fn(&[Tensor], bool) -> Tensor + Send + 'static) -> Result<Tensor> {
    let part: Box<Part> = Box::new(Box::new(part));
    let mut result = std::ptr::null_mut();
    // SAFETY: the inputs live through the call, the part until `drop_part` is called, and the new tensor is ours.
    unsafe {
        let error = caco_recompute(
            pointers(inputs).as_ptr(),
            inputs.len(),
            Box::into_raw(part).cast(),
            call_part,
            drop_part,
            &raw mut result,
        );
        check(error, "part of the network")?;
        Ok(Tensor::from_ptr(result))
    }
}

/// Runs a part for C++.
///
/// # Safety
///
/// `part` is one that [`recompute`] gave away and nobody dropped, `inputs` points to `count` tensors.
unsafe extern "C" fn call_part(
    part: *mut c_void,
    inputs: *const *const C_tensor,
    count: usize,
    again: bool,
    result: *mut *mut C_tensor,
) -> *mut c_char {
    // SAFETY: as above.
    let (part, inputs) = unsafe { (&*part.cast::<Part>(), slice::from_raw_parts(inputs, count)) };
    // SAFETY: a clone is a handle of our own.
    let input = |input: &*const C_tensor| unsafe { Tensor::clone_from_ptr(input.cast_mut()) };
    // A panic must not run into C++.
    match catch_unwind(AssertUnwindSafe(|| part(&inputs.iter().map(input).collect::<Vec<_>>(), again))) {
        Ok(tensor) => {
            // SAFETY: the caller takes over a handle of its own, made by the library that frees it.
            unsafe { *result = torch_sys::at_shallow_clone(tensor.as_ptr().cast_mut()) };
            std::ptr::null_mut()
        }
        Err(panic) => {
            let message = CString::new(said(&*panic).replace('\0', " ")).expect("there is no zero in it");
            // SAFETY: a copy for C's `free`.
            unsafe { libc::strdup(message.as_ptr()) }
        }
    }
}

/// Drops a part for C++.
///
/// # Safety
///
/// `part` is one that [`recompute`] gave away; it is not used any more.
unsafe extern "C" fn drop_part(part: *mut c_void) {
    // SAFETY: as above.
    drop(unsafe { Box::from_raw(part.cast::<Part>()) });
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tch::{Kind, no_grad};

    fn leaf(values: &[f64]) -> Tensor {
        Tensor::from_slice(values).set_requires_grad(true)
    }

    /// a · tanh(b) + c, where `c` wants no gradient, and the turns it ran in.
    fn part(turns: &Arc<Mutex<Vec<bool>>>) -> impl Fn(&[Tensor], bool) -> Tensor + Send + 'static {
        let turns = turns.clone();
        move |inputs, again| {
            turns.lock().unwrap().push(again);
            &inputs[0] * inputs[1].tanh() + &inputs[2]
        }
    }

    #[test]
    fn values_and_gradients_are_those_of_the_part() {
        let inputs = [leaf(&[1.0, -2.0]), leaf(&[0.3, 0.7]), Tensor::from_slice(&[5.0, 6.0])];
        let turns = Arc::new(Mutex::new(vec![]));
        let kept = part(&turns)(&inputs, false);
        let made = recompute(&inputs, part(&turns)).unwrap();
        assert_eq!(*turns.lock().unwrap(), [false, false]);
        let gradients = |y: &Tensor| Tensor::run_backward(&[(y * y).sum(Kind::Double)], &inputs[..2], false, false);
        assert!(kept == made);
        assert_eq!(gradients(&kept), gradients(&made));
        assert_eq!(*turns.lock().unwrap(), [false, false, true]);
        drop(made);
        assert_eq!(Arc::strong_count(&turns), 1, "the part is dropped with its result");
    }

    #[test]
    fn without_autograd_it_runs_once() {
        let inputs = [leaf(&[1.0]), leaf(&[2.0]), leaf(&[3.0])];
        let turns = Arc::new(Mutex::new(vec![]));
        let made = no_grad(|| recompute(&inputs, part(&turns)).unwrap());
        assert!(!made.requires_grad());
        assert_eq!((Arc::strong_count(&turns), turns.lock().unwrap().len()), (1, 1));
    }

    #[test]
    fn a_panic_comes_back_as_an_error() {
        let fails_in = |turn| {
            move |inputs: &[Tensor], again: bool| {
                assert!(again != turn, "no room for {}", inputs.len());
                inputs[0].shallow_clone() * 2
            }
        };
        let error = recompute(&[leaf(&[1.0])], fails_in(false)).unwrap_err();
        assert_eq!(error.to_string(), "part of the network: no room for 1");
        let x = leaf(&[1.0]);
        let y = recompute(&[x.shallow_clone()], fails_in(true)).unwrap();
        let error = Tensor::f_run_backward(&[y.sum(Kind::Double)], &[&x], false, false).unwrap_err();
        assert!(error.to_string().contains("no room for 1"), "{error}");
    }
}
