//! Tests that training does not depend on the number of loader threads.

use caco_data::{Loader, Reading, Transform, format, index, synth};
use caco_kinds::{Arch, Format, Method, Model, Pretrain, Stem};
use caco_learn::{
    device,
    model::{Bank, Encoder, Shape},
    train::{
        checkpoint::{self, Position},
        curve::Row,
        fit::{self, End, Place, Watch},
        methods::caco::CaCo,
        momentum_contrast::MomentumContrast,
        pace::Speed,
    },
};
use std::{fs, time::Duration};

struct Silent;

impl Watch for Silent {
    fn stopping(&self) -> bool {
        false
    }
    fn working(&self, _step: Option<u64>) {}
    fn progress(&mut self, _total: u64, _rows: &[Row], _speed: Speed) -> anyhow::Result<()> {
        Ok(())
    }
    fn epoch(&mut self, _epoch: u64, _encoder: &Encoder) -> anyhow::Result<Option<f64>> {
        Ok(None)
    }
}

#[test]
fn loader_threads_change_no_byte_of_a_training() {
    let folder = tempfile::tempdir().unwrap();
    let device = device::for_tests(1).unwrap();
    let images = r#"{"classes": 4, "train": 48, "test": 4, "size": 40}"#;
    synth::draw(&serde_json::from_str(images).unwrap(), folder.path(), |_, _| ()).unwrap();
    let train = folder.path().join("train");
    let listing = format::list(Format::ImageFolder, None, &train).unwrap();
    let (set, _) = index::build(&train, listing, |_, _| ());
    let model = Model { arch: Arch::ResNet18, width: 4, stem: Stem::Cifar, hidden: 16, dim: 8 };
    let parameters = serde_json::json!({"index": "", "method": {"CaCo": {"init": ""}}, "model": model, "views": {"MultiCrop": {"size": 24, "small": 16, "count": 2}},
        "epochs": 2, "batch": 8, "warmup": 0});
    let pretrain: Pretrain = serde_json::from_value(parameters).unwrap();
    let train = |threads| {
        let transform = Transform::Views(pretrain.views.list());
        let reading = Reading { transform, batch: 8, shuffle: true, drop_last: true, seed: 0, threads };
        let work = tempfile::tempdir_in(folder.path()).unwrap();
        let place = Place {
            work: work.path().into(),
            byproducts: work.path().into(),
            every: Duration::MAX,
            device,
            digests: None,
        };
        let query = Shape::from(&model).draw(1, tch::Kind::Float, device);
        let state = MomentumContrast::start(query, Bank::draw(8, 32, 1, tch::Kind::Float, device));
        let Method::CaCo(parameters) = &pretrain.method else { panic!("the method is CaCo") };
        let method = Box::new(CaCo::new(state, parameters, &pretrain));
        let loader = Loader::new(&set, reading).unwrap();
        let End::Finished { method, .. } =
            fit::fit(&model, (&pretrain).into(), method, &loader, &place, &mut Silent).unwrap()
        else {
            panic!("training was not stopped")
        };
        let end = work.path().join("end.safetensors");
        checkpoint::save(&end, &model, Position::default(), &method.changed()).unwrap();
        (fs::read(end).unwrap(), fs::read(work.path().join("curve.jsonl")).unwrap())
    };
    let one = train(1);
    for threads in [2, 7] {
        assert!(train(threads) == one, "{threads} threads");
    }
}
