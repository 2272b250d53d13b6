//! Minimises a smooth convex function by L-BFGS (Liu and Nocedal 1989) with an estimate of its inverse Hessian that the
//! function provides and may renew between steps. Independent of the function.
//!
//! Implemented here because no available solver takes such an estimate, which gives most of the speed: pairs of steps
//! and gradient changes stay valid whatever the estimate, so it can be renewed at any step.

use std::collections::VecDeque;
use tch::Tensor;

/// A smooth convex function of a vector of f64.
pub trait Objective {
    /// Value and gradient at a point.
    fn evaluate(&mut self, at: &Tensor) -> (f64, Tensor);
    /// An estimate of the inverse Hessian, times a vector. Must be symmetric and positive definite, except in
    /// directions in which the gradient is always 0.
    fn precondition(&self, vector: &Tensor) -> Tensor;
    /// Called once per step, after evaluating the new point, when the estimate can be renewed.
    fn stepped(&mut self);
}

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub struct Stop {
    /// The largest absolute entry of the gradient is at most this.
    pub gradient: f64,
    /// A step decreased the value by no more than this.
    pub decrease: f64,
    /// Maximum number of steps.
    pub steps: u64,
}

/// Where a minimisation ended.
#[derive(Debug)]
pub struct Minimum {
    /// The point.
    pub at: Tensor,
    /// The value there.
    pub value: f64,
    /// Steps taken.
    pub steps: u64,
    /// Evaluations made.
    pub evaluations: u64,
    /// False if the maximum number of steps was reached first.
    pub converged: bool,
}

/// Number of pairs kept.
const MEMORY: usize = 10;

/// A step and the change of the gradient; `scale` is 1 / (step · change).
struct Pair {
    step: Tensor,
    change: Tensor,
    scale: f64,
}

struct Point {
    at: Tensor,
    value: f64,
    gradient: Tensor,
}

/// Minimises from `start` (one dimension, f64).
pub fn minimise(objective: &mut impl Objective, start: &Tensor, stop: Stop) -> Minimum {
    let (value, gradient) = objective.evaluate(start);
    let mut point = Point { at: start.copy(), value, gradient };
    let mut pairs = VecDeque::with_capacity(MEMORY);
    let (mut steps, mut evaluations, mut converged) = (0, 1, false);
    while !converged && steps < stop.steps {
        if largest(&point.gradient) <= stop.gradient {
            converged = true;
            break;
        }
        let direction = descend(objective, &pairs, &point.gradient);
        let found = search(objective, &point, &direction, &mut evaluations);
        // No step along a descent direction decreases the value: the limit of precision is reached.
        let Some(next) = found else {
            converged = true;
            break;
        };
        steps += 1;
        objective.stepped();
        converged = point.value - next.value <= stop.decrease;
        remember(&mut pairs, &point, &next);
        point = next;
    }
    converged |= largest(&point.gradient) <= stop.gradient;
    Minimum { at: point.at, value: point.value, steps, evaluations, converged }
}

fn largest(gradient: &Tensor) -> f64 {
    gradient.abs().max().double_value(&[])
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    a.dot(b).double_value(&[])
}

fn remember(pairs: &mut VecDeque<Pair>, from: &Point, to: &Point) {
    let (step, change) = (&to.at - &from.at, &to.gradient - &from.gradient);
    let curvature = dot(&step, &change);
    // For a convex function it is positive up to rounding.
    if curvature > 0.0 {
        if pairs.len() == MEMORY {
            pairs.pop_front();
        }
        pairs.push_back(Pair { step, change, scale: 1.0 / curvature });
    }
}

/// Minus the inverse Hessian times the gradient: the two-loop recursion (Nocedal and Wright, algorithm 7.4) around the
/// objective's own estimate, which is scaled to the curvature of the last step.
fn descend(objective: &impl Objective, pairs: &VecDeque<Pair>, gradient: &Tensor) -> Tensor {
    let mut q = gradient.neg();
    let mut weights = Vec::with_capacity(pairs.len());
    for pair in pairs.iter().rev() {
        let weight = pair.scale * dot(&pair.step, &q);
        q -= &pair.change * weight;
        weights.push(weight);
    }
    let mut direction = objective.precondition(&q);
    if let Some(last) = pairs.back() {
        direction *= 1.0 / (last.scale * dot(&last.change, &objective.precondition(&last.change)));
    }
    for (pair, weight) in pairs.iter().zip(weights.into_iter().rev()) {
        let back = pair.scale * dot(&pair.change, &direction);
        direction += &pair.step * (weight - back);
    }
    direction
}

/// A point along `direction` that satisfies the weak Wolfe conditions, the first in a form that is robust to rounding
/// (Hager and Zhang 2005). `None` if no trial point has a lower value.
fn search(objective: &mut impl Objective, from: &Point, direction: &Tensor, evaluations: &mut u64) -> Option<Point> {
    const TRIALS: u32 = 60;
    let slope = dot(&from.gradient, direction);
    if slope.is_nan() || slope >= 0.0 {
        return None;
    }
    // The rounding error of a sum of this size.
    let noise = 1e-14 * from.value.abs();
    let (mut low, mut high, mut length) = (0.0, f64::INFINITY, 1.0);
    for _ in 0..TRIALS {
        let at = &from.at + direction * length;
        let (value, gradient) = objective.evaluate(&at);
        *evaluations += 1;
        let slope_there = dot(&gradient, direction);
        let flat = slope_there.abs() <= -0.8 * slope && value <= from.value + noise;
        let lower = value <= from.value + 1e-4 * length * slope || flat;
        if !lower {
            high = length;
            // The minimum of the parabola through value, slope and the trial's value, kept inside the bracket.
            let parabola = -slope * length * length / (2.0 * (value - from.value - slope * length));
            let inside = |t: f64| t.clamp(low + 0.1 * (high - low), low + 0.5 * (high - low));
            length = if parabola.is_finite() { inside(parabola) } else { inside(0.0) };
        } else if slope_there < 0.9 * slope {
            low = length;
            length = if high.is_finite() { (low + high) / 2.0 } else { 2.0 * length };
        } else {
            return Some(Point { at, value, gradient });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    /// ½ xᵀHx − bᵀx + Σ x⁴/4 with H diagonal, over six decades.
    struct Quartic {
        diagonal: Tensor,
        target: Tensor,
        preconditioned: bool,
        quartic: f64,
    }

    impl Quartic {
        fn new(n: i64, preconditioned: bool, quartic: f64) -> Self {
            let diagonal = Tensor::linspace(0.0, 6.0, n, (Kind::Double, Device::Cpu)).exp10();
            let target = Tensor::linspace(1.0, -2.0, n, (Kind::Double, Device::Cpu));
            Quartic { diagonal, target, preconditioned, quartic }
        }
    }

    trait Exp10 {
        fn exp10(&self) -> Tensor;
    }

    impl Exp10 for Tensor {
        fn exp10(&self) -> Tensor {
            (self * std::f64::consts::LN_10).exp()
        }
    }

    impl Objective for Quartic {
        fn evaluate(&mut self, x: &Tensor) -> (f64, Tensor) {
            let h = &self.diagonal * x;
            let cube = x.pow_tensor_scalar(3.0) * self.quartic;
            let value = dot(&h, x) / 2.0 - dot(&self.target, x) + dot(&cube, x) / 4.0;
            (value, h - &self.target + cube)
        }
        fn precondition(&self, vector: &Tensor) -> Tensor {
            if self.preconditioned { vector / &self.diagonal } else { vector.copy() }
        }
        fn stepped(&mut self) {}
    }

    const STOP: Stop = Stop { gradient: 1e-10, decrease: 0.0, steps: 10_000 };

    #[test]
    fn a_quadratic_with_its_inverse_hessian_takes_one_step() {
        let mut objective = Quartic::new(50, true, 0.0);
        let minimum = minimise(&mut objective, &Tensor::zeros([50], (Kind::Double, Device::Cpu)), STOP);
        assert!(minimum.converged && minimum.steps == 1, "{minimum:?}");
        let error = (minimum.at * &objective.diagonal - &objective.target).abs().max().double_value(&[]);
        assert!(error < 1e-12, "{error}");
    }

    #[test]
    fn a_bad_estimate_costs_steps_not_the_minimum() {
        let start = Tensor::full([30], 3.0, (Kind::Double, Device::Cpu));
        let [good, bad] = [true, false].map(|good| minimise(&mut Quartic::new(30, good, 1.0), &start, STOP));
        assert!(good.converged && bad.converged, "{good:?} {bad:?}");
        assert!(good.steps < bad.steps, "{} {}", good.steps, bad.steps);
        assert!((good.value - bad.value).abs() < 1e-9 * good.value.abs());
    }

    #[test]
    fn running_out_of_steps_is_reported() {
        let start = Tensor::full([30], 3.0, (Kind::Double, Device::Cpu));
        let minimum = minimise(&mut Quartic::new(30, false, 1.0), &start, Stop { steps: 3, ..STOP });
        assert!(!minimum.converged && minimum.steps == 3);
    }
}
