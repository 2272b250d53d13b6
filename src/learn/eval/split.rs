//! Draws a validation split for sets that have none.

use caco_measure::rng::Rng;

/// Image numbers of the two parts, each in ascending order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// For fitting.
    pub train: Vec<i64>,
    /// For model selection.
    pub val: Vec<i64>,
}

/// Puts a fraction `share` of each class's images (rounded, at least one if the class has two or more, never all) into
/// `val`, drawn by `seed`.
pub fn stratified(labels: &[i64], classes: usize, share: f64, seed: u64) -> Split {
    let mut members = vec![Vec::new(); classes];
    for (image, &label) in labels.iter().enumerate() {
        members[label as usize].push(image as i64);
    }
    let mut split = Split { train: Vec::new(), val: Vec::new() };
    for (class, mut images) in members.into_iter().enumerate() {
        Rng::new(seed, "validation split", 0, class as u64).shuffle(&mut images);
        let count = (share * images.len() as f64).round() as usize;
        let count = if images.len() < 2 { 0 } else { count.clamp(1, images.len() - 1) };
        split.train.extend(images.split_off(count));
        split.val.extend(images);
    }
    split.train.sort_unstable();
    split.val.sort_unstable();
    split
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_image_is_in_one_part_and_every_class_in_both(
            labels in prop::collection::vec(0i64..5, 0..200), share in 0.01f64..0.99, seed: u64,
        ) {
            let split = stratified(&labels, 5, share, seed);
            let mut all: Vec<i64> = split.train.iter().chain(&split.val).copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..labels.len() as i64).collect::<Vec<_>>());
            for class in 0..5 {
                let count = |part: &[i64]| part.iter().filter(|&&i| labels[i as usize] == class).count();
                let (train, val) = (count(&split.train), count(&split.val));
                let expected = share * (train + val) as f64;
                prop_assert!(train + val < 2 || (train > 0 && val > 0));
                prop_assert!((val as f64 - expected).abs() <= 1.0, "{} of {}", val, train + val);
            }
        }
    }

    #[test]
    fn the_seed_draws() {
        let labels = vec![0; 100];
        assert_eq!(stratified(&labels, 1, 0.2, 1), stratified(&labels, 1, 0.2, 1));
        assert_ne!(stratified(&labels, 1, 0.2, 1), stratified(&labels, 1, 0.2, 2));
    }
}
