//! Weighted k-nearest-neighbour classification by cosine (Wu et al. 2018, "Unsupervised feature learning via
//! non-parametric instance discrimination", section 3.4).

use crate::model::unit;
use anyhow::{Result, ensure};
use caco_measure::rng::Rng;
use tch::{Kind, Tensor, no_grad};

/// How neighbours vote.
#[derive(Clone, Copy, Debug)]
pub struct Vote {
    /// Number of neighbours; all images if there are fewer.
    pub k: u32,
    /// The weight of a vote is exp(cosine / temperature).
    pub temperature: f64,
}

/// Similarities held in memory at a time.
const BLOCK: i64 = 1 << 24;

/// For each of `queries` [n, d], the class that the nearest of `bank` [m, d] vote for (floats of any length on one
/// device; neither is changed). `labels` are those of the bank, 0 to `classes` − 1. If sums are equal, the lower class
/// wins.
pub fn classify(bank: &Tensor, labels: &[i64], queries: &Tensor, classes: usize, vote: Vote) -> Result<Vec<i64>> {
    let (images, d) = bank.size2()?;
    ensure!(images > 0 && images == labels.len() as i64, "{images} images that vote, {} labels", labels.len());
    ensure!(queries.size2()?.1 == d, "features of {} and of {d} dimensions", queries.size2()?.1);
    let outside = labels.iter().find(|label| !(0..classes as i64).contains(*label));
    ensure!(outside.is_none(), "label {} of {classes} classes", outside.copied().unwrap_or_default());
    no_grad(|| {
        let bank = unit(bank, 1).tr();
        let k = i64::from(vote.k).min(images);
        let mut answers = Vec::with_capacity(queries.size()[0] as usize);
        for block in queries.split((BLOCK / images).max(1), 0) {
            let (cosines, nearest) = unit(&block, 1).matmul(&bank).topk(k, 1, true, true);
            let cosines = Vec::<f32>::try_from(cosines.to_kind(Kind::Float).view(-1))?;
            let nearest = Vec::<i64>::try_from(nearest.view(-1))?;
            let both = cosines.chunks_exact(k as usize).zip(nearest.chunks_exact(k as usize));
            answers.extend(both.map(|(cosines, nearest)| elect(cosines, nearest, labels, classes, vote.temperature)));
        }
        Ok(answers)
    })
}

/// The class with the largest sum of votes. Cosines are sorted in descending order.
fn elect(cosines: &[f32], nearest: &[i64], labels: &[i64], classes: usize, temperature: f64) -> i64 {
    let mut votes = vec![0.0; classes];
    for (cosine, &image) in cosines.iter().zip(nearest) {
        // Relative to the nearest neighbour: the same result, without overflow at any temperature.
        votes[labels[image as usize] as usize] += (f64::from(cosine - cosines[0]) / temperature).exp();
    }
    let first = |best: usize, class: usize| if votes[class] > votes[best] { class } else { best };
    (0..classes).fold(0, first) as i64
}

/// The accuracy on `queries`, used to monitor training.
pub fn top1(bank: &Tensor, labels: &[i64], queries: &Tensor, right: &[i64], vote: Vote) -> Result<f64> {
    ensure!(!right.is_empty() && queries.size2()?.0 == right.len() as i64, "{} labels to predict", right.len());
    let classes = labels.iter().chain(right).max().map_or(0, |most| *most as usize + 1);
    let answers = classify(bank, labels, queries, classes, vote)?;
    Ok(answers.iter().zip(right).filter(|(answer, right)| answer == right).count() as f64 / right.len() as f64)
}

/// The images that vote: a fraction `share` of `images` (rounded, at least one), drawn by `seed`, in ascending order.
pub fn sample(images: usize, share: f64, seed: u64) -> Vec<i64> {
    let count = ((share * images as f64).round() as usize).clamp(images.min(1), images);
    let mut drawn = Rng::new(seed, "knn bank", 0, 0).permutation(images);
    drawn.truncate(count);
    drawn.sort_unstable();
    drawn.into_iter().map(i64::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    const VOTE: Vote = Vote { k: 3, temperature: 0.2 };

    fn on_circle(degrees: &[f64]) -> Tensor {
        let points: Vec<f32> =
            degrees.iter().map(|a| a.to_radians()).flat_map(|a| [a.cos() as f32 * 3.0, a.sin() as f32 * 3.0]).collect();
        Tensor::from_slice(&points).view([-1, 2])
    }

    #[test]
    fn nearer_neighbours_have_more_weight() {
        let bank = on_circle(&[0.0, 50.0, 60.0, 180.0]);
        let labels = [1, 0, 0, 2];
        // At 1°: e^(cos 1°/T) against e^(cos 49°/T) + e^(cos 59°/T): one near neighbour beats two far ones at T = 0.2,
        // not at T = 10.
        let query = on_circle(&[1.0]);
        assert_eq!(classify(&bank, &labels, &query, 3, VOTE).unwrap(), [1]);
        assert_eq!(classify(&bank, &labels, &query, 3, Vote { temperature: 10.0, ..VOTE }).unwrap(), [0]);
        assert_eq!(classify(&bank, &labels, &query, 3, Vote { k: 99, temperature: 1e-4 }).unwrap(), [1]);
    }

    #[test]
    fn blocks_change_nothing() {
        let draw = |n: i64, from: u64| {
            let mut rng = Rng::new(from, "test", 0, 0);
            let values: Vec<f32> = (0..n * 8).map(|_| rng.normal() as f32).collect();
            Tensor::from_slice(&values).view([n, 8])
        };
        let (bank, queries) = (draw(300, 1), draw(200, 2));
        let labels: Vec<i64> = (0..300).map(|i| i % 7).collect();
        let whole = classify(&bank, &labels, &queries, 7, VOTE).unwrap();
        let pieces: Vec<i64> =
            queries.split(3, 0).iter().flat_map(|piece| classify(&bank, &labels, piece, 7, VOTE).unwrap()).collect();
        assert_eq!(whole, pieces);
        let right = whole.iter().zip(0..).filter(|(answer, i)| **answer == i % 7).count() as f64 / 200.0;
        let labels_of_queries: Vec<i64> = (0..200).map(|i| i % 7).collect();
        assert_eq!(top1(&bank, &labels, &queries, &labels_of_queries, VOTE).unwrap(), right);
    }

    #[test]
    fn features_and_labels_must_fit() {
        let bank = on_circle(&[0.0, 90.0]);
        assert!(classify(&bank, &[0], &bank, 1, VOTE).is_err());
        assert!(classify(&bank, &[0, 5], &bank, 2, VOTE).unwrap_err().to_string().contains("label 5 of 2"));
        let flat = Tensor::zeros([1, 3], (Kind::Float, Device::Cpu));
        assert!(classify(&bank, &[0, 1], &flat, 2, VOTE).is_err());
    }

    #[test]
    fn the_sample_has_its_size() {
        let drawn = sample(1000, 0.2, 7);
        assert!(drawn.len() == 200 && drawn.is_sorted() && drawn[199] < 1000);
        assert_eq!(drawn, sample(1000, 0.2, 7));
        assert_ne!(drawn, sample(1000, 0.2, 8));
        assert_eq!(sample(3, 1.0, 0), [0, 1, 2]);
        assert_eq!(sample(3, 0.01, 0).len(), 1);
    }
}
