//! Computes metrics from answers: accuracy, mean per-class accuracy, average precision.

/// Whether the correct label is among the first `k` answers of each image. `answers` has `width` answers per image, the
/// likeliest first.
pub fn hits(labels: &[i64], answers: &[i64], width: usize, k: usize) -> Vec<bool> {
    assert_eq!(answers.len(), labels.len() * width, "{width} answers per image");
    assert!((1..=width).contains(&k), "top {k} of {width} answers");
    labels.iter().zip(answers.chunks_exact(width)).map(|(label, answers)| answers[..k].contains(label)).collect()
}

/// Mean over classes of the fraction of correct answers, with each image weighted by `counts` (1 if absent). Classes
/// without images are ignored; if all are empty the mean is 0.
pub fn mean_per_class(labels: &[i64], right: &[bool], classes: usize, counts: Option<&[u32]>) -> f64 {
    assert_eq!(labels.len(), right.len(), "one answer per image");
    let (mut hits, mut images) = (vec![0u64; classes], vec![0u64; classes]);
    for (i, (&label, &right)) in labels.iter().zip(right).enumerate() {
        let count = counts.map_or(1, |counts| u64::from(counts[i]));
        images[label as usize] += count;
        hits[label as usize] += count * u64::from(right);
    }
    let seen = images.iter().filter(|&&n| n > 0).count().max(1);
    hits.iter().zip(&images).filter(|(_, n)| **n > 0).map(|(h, n)| *h as f64 / *n as f64).sum::<f64>() / seen as f64
}

/// Images ranked by a detector of one class.
#[derive(Clone, Debug)]
pub struct Ranking {
    /// Image number and whether it shows the class, in descending order of score.
    ranked: Vec<(usize, bool)>,
}

impl Ranking {
    /// Ranks by score; images with equal scores keep their order.
    pub fn new(scores: &[f64], positive: &[bool]) -> Self {
        assert_eq!(scores.len(), positive.len(), "one score per image");
        let mut ranked: Vec<(usize, bool)> = positive.iter().copied().enumerate().collect();
        ranked.sort_by(|a, b| scores[b.0].total_cmp(&scores[a.0]));
        Ranking { ranked }
    }

    /// 11-point average precision, as in VOC 2007 (Everingham et al. 2010, section 4.2): the mean, over recalls of 0,
    /// 0.1 … 1, of the best precision at that recall or higher. Each image is weighted by `counts` (1 if absent). 0
    /// without positives.
    pub fn eleven_point(&self, counts: Option<&[u32]>) -> f64 {
        let count = |image: usize| counts.map_or(1, |counts| u64::from(counts[image]));
        let positives: u64 = self.ranked.iter().filter(|(_, positive)| *positive).map(|(image, _)| count(*image)).sum();
        let mut best = [0.0f64; 11];
        let (mut found, mut seen) = (0, 0);
        for &(image, positive) in &self.ranked {
            for _ in 0..count(image) {
                seen += 1;
                found += u64::from(positive);
                if positive {
                    // A recall of found/positives reaches the tenths up to this one.
                    let tenths = (10 * found / positives) as usize;
                    best[tenths] = best[tenths].max(found as f64 / seen as f64);
                }
            }
        }
        // A precision at some recall counts for every lower recall.
        for i in (0..10).rev() {
            best[i] = best[i].max(best[i + 1]);
        }
        best.iter().sum::<f64>() / 11.0
    }
}

/// The ranking of each class. `scores` and `positive` are image by image, one entry per class.
pub fn rankings(scores: &[f64], positive: &[bool], classes: usize) -> Vec<Ranking> {
    assert!(
        classes > 0 && scores.len() == positive.len() && scores.len().is_multiple_of(classes),
        "{classes} scores per image"
    );
    let column = |class: usize| {
        let scores: Vec<f64> = scores.iter().skip(class).step_by(classes).copied().collect();
        let positive: Vec<bool> = positive.iter().skip(class).step_by(classes).copied().collect();
        Ranking::new(&scores, &positive)
    };
    (0..classes).map(column).collect()
}

/// Mean of the classes' 11-point average precisions, with each image weighted by `counts` (1 if absent).
pub fn mean_average_precision(rankings: &[Ranking], counts: Option<&[u32]>) -> f64 {
    rankings.iter().map(|ranking| ranking.eleven_point(counts)).sum::<f64>() / rankings.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn top_k_uses_the_first_k_answers() {
        let answers = [3, 1, 2, 0, 3, 1];
        assert_eq!(hits(&[1, 0], &answers, 3, 1), [false, true]);
        assert_eq!(hits(&[1, 1], &answers, 3, 2), [true, false]);
        assert_eq!(hits(&[1, 1], &answers, 3, 3), [true, true]);
    }

    #[test]
    fn classes_have_equal_weight_however_many_images_they_have() {
        let labels = [0, 0, 0, 0, 1, 3];
        let right = [true, true, true, false, false, true];
        // Class 2 has no images.
        assert_eq!(mean_per_class(&labels, &right, 4, None), (0.75 + 0.0 + 1.0) / 3.0);
        assert_eq!(mean_per_class(&labels, &right, 4, Some(&[0, 0, 0, 2, 1, 3])), (0.0 + 0.0 + 1.0) / 3.0);
        assert_eq!(mean_per_class(&[], &[], 4, None), 0.0);
    }

    #[test]
    fn average_precision_by_hand() {
        // Ranked + − + − +: recalls 1/3, 2/3, 1 with precisions 1, 2/3, 3/5; recall ≥ 0…0.3 sees 1, ≥ 0.4…0.6 sees 2/3,
        // ≥ 0.7…1 sees 3/5.
        let ranking = Ranking::new(&[5.0, 4.0, 3.0, 2.0, 1.0], &[true, false, true, false, true]);
        let expected = (4.0 + 3.0 * 2.0 / 3.0 + 4.0 * 0.6) / 11.0;
        assert!((ranking.eleven_point(None) - expected).abs() < 1e-15);
        assert_eq!(Ranking::new(&[1.0, 2.0], &[false, false]).eleven_point(None), 0.0);
        assert_eq!(Ranking::new(&[1.0, 2.0], &[false, true]).eleven_point(None), 1.0);
    }

    #[test]
    fn counting_an_image_twice_is_the_same_as_having_it_twice() {
        let mut rng = Rng::new(0, "test", 0, 0);
        let scores: Vec<f64> = (0..50).map(|_| rng.normal()).collect();
        let positive: Vec<bool> = (0..50).map(|_| rng.chance(0.3)).collect();
        let counts: Vec<u32> = (0..50).map(|_| rng.below(4) as u32).collect();
        let repeat = |i: usize| std::iter::repeat_n(i, counts[i] as usize);
        let (more_scores, more_positive): (Vec<f64>, Vec<bool>) =
            (0..50).flat_map(repeat).map(|i| (scores[i], positive[i])).unzip();
        let counted = Ranking::new(&scores, &positive).eleven_point(Some(&counts));
        assert_eq!(counted, Ranking::new(&more_scores, &more_positive).eleven_point(None));
    }

    #[test]
    fn classes_are_ranked_on_their_own_and_averaged() {
        // Class 0 ranks − +, class 1 ranks + −.
        let rankings = rankings(&[0.9, 0.8, 0.1, 0.2], &[false, true, true, false], 2);
        assert_eq!(rankings[0].eleven_point(None), 0.5);
        assert_eq!(mean_average_precision(&rankings, None), 0.75);
        assert_eq!(mean_average_precision(&rankings, Some(&[0, 1])), 0.5);
    }
}
