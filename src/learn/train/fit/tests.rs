use super::*;
use crate::{
    device,
    model::{Bank, Network, Shape},
    train::{
        bench, checkpoint,
        method::{Changed, Lap},
        methods::{
            self,
            caco::{self, CaCo, Initialisation},
        },
        momentum_contrast::MomentumContrast,
    },
};
use anyhow::anyhow;
use caco_data::batch::{Batch, Batches, Pixels};
use caco_kinds::{Activations, Arch, InitBank, Method as Named, Objective, Precision, Pretrain, Stem, Views};
use caco_measure::rng::Rng;
use std::{cell::Cell, collections::BTreeSet, fs, path::Path};
use tch::{Kind, Tensor};

/// Noise, drawn by epoch and sample. Fails at batch number `fails_at`, counted over all epochs.
struct Noise {
    views: usize,
    given: Cell<u64>,
    fails_at: u64,
}

impl Source for Noise {
    fn batches(&self) -> u64 {
        5
    }

    fn epoch(&self, epoch: u64, first: u64) -> Result<Batches<'_>> {
        let batch = move |number: u64| {
            self.given.set(self.given.get() + 1);
            if self.given.get() == self.fails_at {
                return Err(anyhow!("killed"));
            }
            let view = |view| {
                let mut rng = Rng::new(view, "noise", epoch, number);
                let size = if view < 2 { 16 } else { 8 };
                let data: Vec<u8> = (0..4 * size * size * 3).map(|_| rng.next_u64() as u8).collect();
                Pixels { count: 4, size: (size, size), data: data.into() }
            };
            let views = (0..self.views as u64).map(view).collect();
            Ok(Batch { views, labels: vec![0; 4], samples: vec![0; 4] })
        };
        Ok(Box::new((first..5).map(batch)))
    }
}

/// Stops after step `stops_at`, and returns a kNN accuracy computed from the encoder.
struct Stopper {
    stops_at: u64,
    calls: Cell<u64>,
}

impl Watch for Stopper {
    fn stopping(&self) -> bool {
        self.calls.set(self.calls.get() + 1);
        self.calls.get() == self.stops_at
    }
    fn working(&self, _step: Option<u64>) {}
    fn progress(&mut self, _total: u64, _rows: &[Row], _speed: Speed) -> Result<()> {
        Ok(())
    }
    fn epoch(&mut self, _epoch: u64, encoder: &Encoder) -> Result<Option<f64>> {
        let images = Tensor::linspace(-1.0, 1.0, 3 * 16 * 16, (Kind::Float, here())).view([1, 3, 16, 16]);
        Ok(Some(encoder.features(&images, Precision::F32).mean(None).double_value(&[])))
    }
}

/// The device of the tests.
fn here() -> Device {
    device::for_tests(1).unwrap()
}

fn tiny() -> Model {
    Model { arch: Arch::ResNet18, width: 4, stem: Stem::Cifar, hidden: 8, dim: 8 }
}

fn pretrain(views: Views, precision: Precision, objective: Objective) -> Pretrain {
    let json = serde_json::json!({"index": "", "method": {"CaCo": {"init": "", "objective": objective}},
        "model": tiny(), "views": views, "epochs": 3, "batch": 4, "warmup": 1, "precision": precision});
    serde_json::from_value(json).unwrap()
}

fn query() -> Network {
    Shape::from(&tiny()).draw(1, Kind::Float, here())
}

fn bank() -> Bank {
    Bank::draw(8, 24, 1, Kind::Float, here())
}

/// A training in the tests: its plan, and its method in the initial state.
trait Training {
    fn plan(&self) -> Plan;
    fn begin(&self) -> Box<dyn Method>;
}

impl Training for Pretrain {
    fn plan(&self) -> Plan {
        self.into()
    }
    fn begin(&self) -> Box<dyn Method> {
        match &self.method {
            Named::CaCo(parameters) => Box::new(CaCo::new(MomentumContrast::start(query(), bank()), parameters, self)),
            _ => methods::begin(self, None, here()).unwrap(),
        }
    }
}

impl Training for InitBank {
    fn plan(&self) -> Plan {
        self.into()
    }
    fn begin(&self) -> Box<dyn Method> {
        Box::new(Initialisation::new(query(), bank(), self))
    }
}

/// Runs in `folder` to the end, interrupted every `stride` steps (0: never). Returns all resulting bytes: the state, the
/// curve and the digests.
fn run(training: &dyn Training, folder: &Path, stride: u64, kill: bool, every: Duration) -> [Vec<u8>; 3] {
    let digests = folder.join("digests.jsonl");
    let place = Place {
        work: folder.into(),
        byproducts: folder.join("byproducts"),
        every,
        device: here(),
        digests: Some(digests.clone()),
    };
    for _ in 0..100 {
        let source =
            Noise { views: training.plan().views, given: Cell::new(0), fails_at: if kill { stride } else { 0 } };
        let mut stopper = Stopper { stops_at: if kill { 0 } else { stride }, calls: Cell::new(0) };
        match fit(&tiny(), training.plan(), training.begin(), &source, &place, &mut stopper) {
            Ok(End::Finished { method, curve }) => {
                let (end, rows) = (folder.join("end.safetensors"), folder.join("end.jsonl"));
                checkpoint::save(&end, &tiny(), Position::default(), &method.changed()).unwrap();
                curve.unwrap().copy(&rows).unwrap();
                return [end, rows, digests].map(|path| fs::read(path).unwrap());
            }
            Ok(End::Stopped) => assert!(!kill),
            Err(error) => assert_eq!(error.to_string(), "killed"),
        }
    }
    panic!("it makes no progress");
}

fn same_however_interrupted(training: &dyn Training) {
    let (never, always) = (Duration::MAX, Duration::ZERO);
    let once = tempfile::tempdir().unwrap();
    let whole = run(training, once.path(), 0, false, never);
    for stride in [1, 4, 7] {
        let stopped = tempfile::tempdir().unwrap();
        assert!(run(training, stopped.path(), stride, false, never) == whole, "stopped every {stride}");
    }
    for stride in [2, 3, 6] {
        let killed = tempfile::tempdir().unwrap();
        assert!(run(training, killed.path(), stride, true, always) == whole, "killed every {stride}");
    }
    let late = tempfile::tempdir().unwrap();
    let names = |folder: &Path| fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
    run(training, late.path(), 0, false, always);
    let kept = names(late.path()).iter().filter(|p| p.to_string_lossy().contains("checkpoint-")).count();
    assert_eq!(kept, 2, "the newest two are kept");
}

#[test]
fn an_interrupted_training_ends_in_the_same_bytes() {
    let single = Views::SingleCrop { size: 16 };
    same_however_interrupted(&pretrain(single, Precision::F32, Objective::CaCo));
}

#[test]
fn an_interrupted_multi_crop_training_ends_in_the_same_bytes() {
    let multi = Views::MultiCrop { size: 16, small: 8, count: 2 };
    same_however_interrupted(&pretrain(multi, Precision::Bf16, Objective::Queue));
}

#[test]
fn an_interrupted_bank_initialisation_ends_in_the_same_bytes() {
    let json = serde_json::json!({"index": "", "model": tiny(), "views": Views::SingleCrop { size: 16 }, "batch": 4,
        "bank_size": 18});
    let init: InitBank = serde_json::from_value(json).unwrap();
    assert_eq!(init.plan().steps, 5);
    same_however_interrupted(&init);
}

/// A short training of every method but CaCo.
fn others() -> Vec<Pretrain> {
    let methods = serde_json::json!([
        {"MoCoV2": {"queue_size": 18}},
        {"AdCo": {"bank_size": 24, "symmetric": true}},
        {"SimCLR": {}},
        {"BYOL": {"predictor": 8}},
        {"SwAV": {"prototypes": 6}},
    ]);
    let training = |method: &serde_json::Value| {
        let json = serde_json::json!({"index": "", "method": method, "model": tiny(), "epochs": 3, "batch": 4,
            "views": Views::SingleCrop { size: 16 }, "warmup": 1, "shards": 2});
        serde_json::from_value(json).unwrap()
    };
    methods.as_array().unwrap().iter().map(training).collect()
}

#[test]
fn an_interrupted_training_of_any_method_ends_in_the_same_bytes() {
    for mut training in others() {
        same_however_interrupted(&training);
        if matches!(training.method, Named::AdCo(_) | Named::SwAV(_)) {
            training.views = Views::MultiCrop { size: 16, small: 8, count: 2 };
            same_however_interrupted(&training);
        }
    }
}

#[test]
fn every_step_of_any_method_has_the_digests_that_the_head_names() {
    for training in others() {
        let [_, _, digests] = run(&training, tempfile::tempdir().unwrap().path(), 0, false, Duration::MAX);
        let lines: Vec<serde_json::Value> =
            String::from_utf8(digests).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let tensors = lines[0]["tensors"].as_array().unwrap();
        assert_eq!(lines.len(), 1 + 15);
        for line in &lines[1..] {
            assert_eq!(line["digests"].as_str().unwrap().len(), 8 * tensors.len(), "{:?}", training.method);
        }
    }
}

#[test]
fn a_checkpoint_of_another_method_is_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let all = others();
    let saved = folder.path().join("checkpoint-000000000005.safetensors");
    let position = Position { epoch: 1, step: 0, done: 5, curve: 0 };
    checkpoint::save(&saved, &tiny(), position, &all[4].begin().changed()).unwrap();
    let resume = |training: &Pretrain| {
        let method = training.begin();
        let before: Vec<Tensor> = method.changed().iter().map(|changed| changed.tensor.copy()).collect();
        let found = Checkpoints::of(folder.path()).resume(&tiny(), &*method).unwrap();
        let is_unchanged = method.changed().iter().zip(before).all(|(now, before)| now.tensor == before);
        (found, is_unchanged)
    };
    assert_eq!(resume(&all[0]), (None, true));
    assert_eq!(resume(&all[4]).0, Some(position));
}

#[test]
fn recomputing_activations_changes_no_bit() {
    let whole = |training: &dyn Training| run(training, tempfile::tempdir().unwrap().path(), 0, false, Duration::MAX);
    let (single, multi) = (Views::SingleCrop { size: 16 }, Views::MultiCrop { size: 16, small: 8, count: 2 });
    for (views, precision, accumulate, shards) in [
        (single.clone(), Precision::F32, 1, 1),
        (single.clone(), Precision::Bf16, 2, 2),
        (multi.clone(), Precision::F32, 1, 4),
        (multi, Precision::Bf16, 1, 1),
    ] {
        let mut training = pretrain(views, precision, Objective::CaCo);
        (training.accumulate, training.shards) = (accumulate, shards);
        let kept = whole(&training);
        training.activations = Activations::Recompute;
        let case = format!("{precision:?}, {accumulate} parts, {shards} shards, {:?}", training.views);
        assert!(whole(&training) == kept, "{case}");
    }
    for mut training in others() {
        let kept = whole(&training);
        training.activations = Activations::Recompute;
        assert!(whole(&training) == kept, "{:?}", training.method);
    }
    let json = serde_json::json!({"index": "", "model": tiny(), "views": single, "batch": 4, "bank_size": 18});
    let mut init: InitBank = serde_json::from_value(json).unwrap();
    let kept = whole(&init);
    init.activations = Activations::Recompute;
    assert!(whole(&init) == kept, "bank initialisation");
}

#[test]
fn recomputing_activations_changes_no_bit_of_bottlenecks_behind_a_pool_with_two_threads() {
    let device = device::for_tests(2).unwrap();
    // Channels that fill whole vectors use the kernels of norm.cpp.
    let model = Model { arch: Arch::ResNet50, width: 16, stem: Stem::Imagenet, hidden: 16, dim: 8 };
    let noise = |view| {
        let mut rng = Rng::new(view, "noise", 0, 0);
        let values: Vec<f64> = (0..4 * 3 * 64 * 64).map(|_| rng.normal()).collect();
        Tensor::from_slice(&values).view([4, 3, 64, 64]).to_kind(Kind::Float).to_device(device)
    };
    let views = [noise(0), noise(1)];
    for (precision, shards) in [(Precision::F32, 1), (Precision::F32, 2), (Precision::Bf16, 1)] {
        let end = |activations| {
            let query = Shape::from(&model).draw(1, Kind::Float, device);
            let mut state = MomentumContrast::start(query, Bank::draw(8, 24, 1, Kind::Float, device));
            let constants = bench::constants(precision, activations, shards);
            for number in 0..2 {
                caco::step(&mut state, &views, &constants, bench::RATES, number, &mut |_| ()).unwrap();
            }
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("end.safetensors");
            checkpoint::save(&path, &model, Position::default(), &state.changed()).unwrap();
            fs::read(path).unwrap()
        };
        assert!(end(Activations::Recompute) == end(Activations::Keep), "{precision:?} {shards}");
    }
}

#[test]
fn a_curve_has_a_row_per_step_and_the_monitors_accuracy() {
    let folder = tempfile::tempdir().unwrap();
    let training = pretrain(Views::SingleCrop { size: 16 }, Precision::F32, Objective::CaCo);
    let [_, curve, _] = run(&training, folder.path(), 0, false, Duration::MAX);
    let rows: Vec<Row> =
        curve.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect();
    assert_eq!(rows.iter().map(|r| r.step).collect::<Vec<_>>(), (1..=15).collect::<Vec<_>>());
    assert_eq!(rows.iter().map(|r| r.epoch).collect::<Vec<_>>(), [[0; 5], [1; 5], [2; 5]].concat());
    assert_eq!(rows.iter().filter(|r| r.knn.is_some()).map(|r| r.step).collect::<Vec<_>>(), [5, 10, 15]);
    let names = ["loss", "positive", "bank_norm", "gradient_norm", "spread", "rate", "bank_rate", "key_momentum"];
    for row in rows {
        assert_eq!(row.values.iter().map(|(name, _)| name.as_ref()).collect::<Vec<_>>(), names);
        assert!(row.values[..5].iter().all(|(_, value)| *value > 0.0), "{row:?}");
        assert!(row.get("positive").unwrap() < 1.0, "{row:?}");
    }
}

/// A training after one of whose steps something changes the state.
struct Nudged<'a> {
    inner: &'a Pretrain,
    after: u64,
    tensor: &'a str,
}

impl Training for Nudged<'_> {
    fn plan(&self) -> Plan {
        self.inner.plan()
    }
    fn begin(&self) -> Box<dyn Method> {
        Box::new(NudgedMethod { inner: self.inner.begin(), after: self.after, tensor: self.tensor.into() })
    }
}

struct NudgedMethod {
    inner: Box<dyn Method>,
    after: u64,
    tensor: String,
}

impl Method for NudgedMethod {
    fn step(&mut self, views: &[Tensor], at: At, lap: Lap) -> Result<StepOutput> {
        let output = self.inner.step(views, at, lap)?;
        if at.number + 1 == self.after {
            let nudged = self.changed().into_iter().find(|changed| changed.name == self.tensor).unwrap();
            let _ = tch::no_grad(|| { nudged.tensor }.g_mul_scalar_(1.0 + 1e-6));
        }
        Ok(output)
    }
    fn changed(&self) -> Vec<Changed> {
        self.inner.changed()
    }
    fn encoder(&self) -> &Network {
        self.inner.encoder()
    }
}

#[test]
fn digests_name_the_first_step_and_tensor_that_differ() {
    let training = pretrain(Views::SingleCrop { size: 16 }, Precision::F32, Objective::CaCo);
    let digests = |training: &dyn Training| {
        let [_, _, digests] = run(training, tempfile::tempdir().unwrap().path(), 0, false, Duration::MAX);
        String::from_utf8(digests).unwrap().lines().map(String::from).collect::<Vec<_>>()
    };
    let whole = digests(&training);
    assert_eq!(whole.len(), 1 + 15);
    let head: serde_json::Value = serde_json::from_str(&whole[0]).unwrap();
    let tensors = head["tensors"].as_array().unwrap();
    let weights = query().weights().named().count();
    let parameters = query().weights().parameters().count();
    // Two networks, momenta and gradients; bank and velocity; the loss.
    assert_eq!(tensors.len(), 2 * weights + 2 * parameters + 3, "{head}");
    assert_eq!(tensors.iter().map(ToString::to_string).collect::<BTreeSet<_>>().len(), tensors.len(), "{head}");
    let named = query().weights().parameters().nth(2).map(|(name, _)| format!("query.{name}")).unwrap();
    for (after, tensor) in [(7, "bank.columns"), (9, named.as_str())] {
        let nudged = digests(&Nudged { inner: &training, after, tensor });
        assert_eq!(whole.iter().zip(&nudged).position(|(a, b)| a != b), Some(after as usize));
        let [a, b] = [&whole, &nudged].map(|of| {
            let line: serde_json::Value = serde_json::from_str(&of[after as usize]).unwrap();
            assert_eq!(line["step"], after);
            line["digests"].as_str().unwrap().to_string()
        });
        let first = a.as_bytes().chunks(8).zip(b.as_bytes().chunks(8)).position(|(a, b)| a != b).unwrap();
        assert_eq!(head["tensors"][first], *tensor);
    }
}

#[test]
fn a_nan_names_step_and_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let mut training = pretrain(Views::SingleCrop { size: 16 }, Precision::F32, Objective::CaCo);
    training.rate = Some(1e30);
    let place = Place {
        work: folder.path().into(),
        byproducts: folder.path().into(),
        every: Duration::ZERO,
        device: here(),
        digests: None,
    };
    let source = Noise { views: 2, given: Cell::new(0), fails_at: 0 };
    let mut stopper = Stopper { stops_at: 0, calls: Cell::new(0) };
    let error = fit(&tiny(), training.plan(), training.begin(), &source, &place, &mut stopper).err().unwrap();
    let error = format!("{error:#}");
    assert!(error.contains("NaN at step") || error.contains("inf at step"), "{error}");
    assert!(error.contains("last good checkpoint"), "{error}");
}

#[test]
fn a_collapse_stops() {
    let row = |name: &'static str, value| Row { epoch: 2, step: 7, values: vec![(name.into(), value)], knn: None };
    let collapsed = row("spread", 1e-5);
    let error = collapsed.check(Collapse::Stop).unwrap_err().to_string();
    assert!(error.contains("collapsed: at step 7 (epoch 2)"), "{error}");
    assert!(collapsed.check(Collapse::Continue).is_ok());
    assert!(row("loss", f64::NAN).check(Collapse::Continue).is_err());
    assert!(row("spread", 0.9).check(Collapse::Stop).is_ok());
}
