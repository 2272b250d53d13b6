//! Parts of a network whose activations are recomputed for the backward pass instead of being kept.

use super::{pointers, receive};
use crate::panic_message;
use anyhow::Result;
use std::{
    ffi::{CString, c_char, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    slice,
};
use tch::Tensor;
use torch_sys::C_tensor;

/// A part. Its arguments are the inputs, and whether it is rerun in the backward pass.
type Part = Box<dyn Fn(&[Tensor], bool) -> Vec<Tensor> + Send>;

type Call = unsafe extern "C" fn(*mut c_void, *const *const C_tensor, usize, bool, *mut *mut C_tensor) -> *mut c_char;

unsafe extern "C" {
    fn caco_recompute(
        inputs: *const *const C_tensor,
        count: usize,
        results: usize,
        part: *mut c_void,
        call: Call,
        drop: unsafe extern "C" fn(*mut c_void),
        made: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// Applies `part`, which has so many `results`, to `inputs`, with gradients for those that require them. Only `part` and
/// `inputs` are kept for the backward pass, which reruns `part` on the same values, possibly in another thread; it must
/// compute the same results (Chen et al. 2016, arXiv 1604.06174).
///
/// Returns an error if the part panics.
pub fn recompute(
    inputs: &[Tensor],
    results: usize,
    part: impl Fn(&[Tensor], bool) -> Vec<Tensor> + Send + 'static,
) -> Result<Vec<Tensor>> {
    let part: Box<Part> = Box::new(Box::new(part));
    let part = Box::into_raw(part).cast();
    // SAFETY: the inputs outlive the call, and the part lives until `drop_part` is called.
    receive(results, "part of the network", |made| unsafe {
        caco_recompute(pointers(inputs).as_ptr(), inputs.len(), results, part, call_part, drop_part, made)
    })
}

/// Runs a part for C++.
///
/// # Safety
///
/// `part` was passed to C++ by [`recompute`] and not yet dropped; `inputs` points to `count` tensors, and `results` has
/// room for as many as the part has.
unsafe extern "C" fn call_part(
    part: *mut c_void,
    inputs: *const *const C_tensor,
    count: usize,
    again: bool,
    results: *mut *mut C_tensor,
) -> *mut c_char {
    // SAFETY: as above.
    let (part, inputs) = unsafe { (&*part.cast::<Part>(), slice::from_raw_parts(inputs, count)) };
    // SAFETY: a clone is a handle that we own.
    let input = |input: &*const C_tensor| unsafe { Tensor::clone_from_ptr(input.cast_mut()) };
    // A panic must not unwind into C++.
    match catch_unwind(AssertUnwindSafe(|| part(&inputs.iter().map(input).collect::<Vec<_>>(), again))) {
        Ok(tensors) => {
            for (number, tensor) in tensors.iter().enumerate() {
                // SAFETY: the caller takes ownership of new handles, created by the library that frees them.
                unsafe { *results.add(number) = torch_sys::at_shallow_clone(tensor.as_ptr().cast_mut()) };
            }
            std::ptr::null_mut()
        }
        Err(panic) => {
            let message = CString::new(panic_message::of(&*panic).unwrap_or("it panicked").replace('\0', " "))
                .expect("zeros are replaced");
            // SAFETY: a copy that C releases with `free`.
            unsafe { libc::strdup(message.as_ptr()) }
        }
    }
}

/// Drops a part for C++.
///
/// # Safety
///
/// `part` was passed to C++ by [`recompute`] and is not used afterwards.
unsafe extern "C" fn drop_part(part: *mut c_void) {
    // SAFETY: as above.
    drop(unsafe { Box::from_raw(part.cast::<Part>()) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tch::{Kind, no_grad};

    fn leaf(values: &[f64]) -> Tensor {
        Tensor::from_slice(values).set_requires_grad(true)
    }

    /// a · tanh(b) + c, where `c` requires no gradient; `turns` records the passes it ran in.
    fn part(turns: &Arc<Mutex<Vec<bool>>>) -> impl Fn(&[Tensor], bool) -> Vec<Tensor> + Send + 'static {
        let turns = turns.clone();
        move |inputs, again| {
            turns.lock().unwrap().push(again);
            vec![&inputs[0] * inputs[1].tanh() + &inputs[2]]
        }
    }

    #[test]
    fn values_and_gradients_are_those_of_the_part() {
        let inputs = [leaf(&[1.0, -2.0]), leaf(&[0.3, 0.7]), Tensor::from_slice(&[5.0, 6.0])];
        let turns = Arc::new(Mutex::new(vec![]));
        let kept = part(&turns)(&inputs, false).remove(0);
        let made = recompute(&inputs, 1, part(&turns)).unwrap().remove(0);
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
        let made = no_grad(|| recompute(&inputs, 1, part(&turns)).unwrap().remove(0));
        assert!(!made.requires_grad());
        assert_eq!((Arc::strong_count(&turns), turns.lock().unwrap().len()), (1, 1));
    }

    #[test]
    fn a_panic_is_returned_as_an_error() {
        let fails_in = |turn| {
            move |inputs: &[Tensor], again: bool| {
                assert!(again != turn, "no room for {}", inputs.len());
                vec![inputs[0].shallow_clone() * 2]
            }
        };
        let error = recompute(&[leaf(&[1.0])], 1, fails_in(false)).unwrap_err();
        assert_eq!(error.to_string(), "part of the network: no room for 1");
        let x = leaf(&[1.0]);
        let y = recompute(&[x.shallow_clone()], 1, fails_in(true)).unwrap().remove(0);
        let error = Tensor::f_run_backward(&[y.sum(Kind::Double)], &[&x], false, false).unwrap_err();
        assert!(error.to_string().contains("no room for 1"), "{error}");
    }
}
