//! All random numbers of the project: a generator is identified by (seed, purpose, epoch, sample) and shares no state
//! with others, so any number of threads, and a resumed run, draw the same as a single uninterrupted one.
//!
//! The generator is xoshiro256++ (Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2019), seeded
//! by the BLAKE3 hash of this identity.

/// A stream of random numbers; see the module documentation for its identity.
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u64; 4],
    spare_normal: Option<f64>,
}

impl Rng {
    /// The stream of `purpose` for one sample of one epoch. Purposes are short fixed words such as `"crop"`.
    pub fn new(seed: u64, purpose: &str, epoch: u64, sample: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        hasher.update(&epoch.to_le_bytes());
        hasher.update(&sample.to_le_bytes());
        hasher.update(purpose.as_bytes());
        let digest = *hasher.finalize().as_bytes();
        let word = |i: usize| u64::from_le_bytes(digest[i * 8..i * 8 + 8].try_into().expect("eight bytes"));
        Rng { state: [word(0), word(1), word(2), word(3)], spare_normal: None }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Uniform in [0, 1), with 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in [low, high).
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Uniform in 0..n, without bias (Lemire 2019). `n` must not be 0.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "Rng::below(0)");
        let threshold = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// A standard normal draw (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        if let Some(z) = self.spare_normal.take() {
            return z;
        }
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.uniform()).sin_cos();
        self.spare_normal = Some(radius * sin);
        radius * cos
    }

    /// Shuffles in place (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }

    /// 0..n in random order.
    pub fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..u32::try_from(n).expect("fewer than 2^32 items")).collect();
        self.shuffle(&mut order);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_name_changes_the_stream() {
        let first = |r: &mut Rng| r.next_u64();
        let base = first(&mut Rng::new(1, "crop", 2, 3));
        assert_eq!(base, first(&mut Rng::new(1, "crop", 2, 3)));
        for other in
            [Rng::new(0, "crop", 2, 3), Rng::new(1, "flip", 2, 3), Rng::new(1, "crop", 3, 3), Rng::new(1, "crop", 2, 4)]
        {
            assert_ne!(base, first(&mut other.clone()));
        }
    }

    #[test]
    fn draws_are_frozen() {
        // Results in users' caches depend on these numbers; a change here changes the code version of every stage.
        let mut rng = Rng::new(7, "golden", 1, 2);
        let drawn: Vec<u64> = (0..3).map(|_| rng.next_u64()).collect();
        insta::assert_debug_snapshot!(drawn);
    }

    #[test]
    fn moments_are_right() {
        let mut rng = Rng::new(0, "moments", 0, 0);
        let n = 200_000;
        let (mut mean, mut square) = (0.0, 0.0);
        for _ in 0..n {
            let z = rng.normal();
            mean += z / n as f64;
            square += z * z / n as f64;
        }
        assert!(mean.abs() < 0.01 && (square - 1.0).abs() < 0.02, "{mean} {square}");
        let mut counts = [0; 7];
        (0..70_000).for_each(|_| counts[rng.below(7) as usize] += 1);
        assert!(counts.iter().all(|c| (9_500..10_500).contains(c)), "{counts:?}");
    }
}
