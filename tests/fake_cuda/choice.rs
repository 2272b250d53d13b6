//! Which device is chosen, and what is said about it.

use crate::machine::{Done, Machine, step};
use serde_json::Value;
use std::{fs, os::unix::fs::symlink};

fn bench(machine: &Machine, device: &str) -> Done {
    machine.worker("--bench-step", &step(device).to_string())
}

/// The name of the GPU that a step was taken on.
fn gpu(done: &Done) -> Option<String> {
    assert!(done.success, "{}", done.stderr);
    let report: Value = serde_json::from_str(&done.stdout).unwrap();
    report["class"]["gpu"].as_str().map(String::from)
}

/// The last line of an error.
fn error(done: &Done) -> &str {
    assert!(!done.success, "{}", done.stdout);
    done.stderr.lines().last().unwrap()
}

#[test]
fn a_program_linked_to_the_cpu_half_computes_on_a_gpu() {
    let Some(machine) = Machine::new() else { return };
    let cuda = machine.cuda();
    // As it is shipped: the CUDA half is in a PyTorch elsewhere.
    let machine = machine.without_cuda().with("CACO_LIBTORCH_CUDA", cuda.clone()).with("FAKE_CUDA_DEVICES", "2");
    for device in ["auto", "cuda", "cuda:0", "cuda:1"] {
        let done = bench(&machine, device);
        assert_eq!(gpu(&done).as_deref(), Some("Fake H200"), "{device}");
        let file = cuda.join("libtorch_cuda.so");
        assert!(done.stderr.contains(&format!("Fake H200, with {}", file.display())), "{}", done.stderr);
    }
    assert!(machine.counts().iter().any(|counts| counts.launches > 1000));
    let error = error(&bench(&machine, "cuda:2")).to_string();
    assert!(error.contains("there is no GPU 2: the NVIDIA driver shows 2, counted from 0"), "{error}");
}

#[test]
fn a_half_that_is_loaded_before_the_program_is_used() {
    let Some(machine) = Machine::new() else { return };
    let loaded = machine.cuda().join("libtorch_cuda.so");
    let machine = machine.with("LD_PRELOAD", loaded);
    assert_eq!(gpu(&bench(&machine, "cuda:0")).as_deref(), Some("Fake H200"));
}

#[test]
fn auto_says_why_it_takes_the_cpu() {
    type With = fn(Machine) -> Machine;
    let cases: [(With, &str, &str); 3] = [
        (Machine::without_driver, " INFO", "there is no NVIDIA driver"),
        (
            |machine| machine.with("CUDA_VISIBLE_DEVICES", ""),
            " INFO",
            "the NVIDIA driver sees no GPU (CUDA_VISIBLE_DEVICES=)",
        ),
        // A GPU that is not used is worth a warning.
        (Machine::without_cuda, " WARN", "install PyTorch 2.11.0"),
    ];
    for (with, level, why) in cases {
        let Some(machine) = Machine::new().map(with) else { return };
        let done = bench(&machine, "auto");
        assert_eq!(gpu(&done), None);
        let said = done.stderr.lines().next().unwrap();
        assert!(said.starts_with(level) && said.contains("device cpu: ") && said.contains(why), "{said}");
        // What was asked for by name is an error.
        for device in ["cuda", "cuda:0"] {
            let said = error(&bench(&machine, device)).to_string();
            assert!(said.contains(&format!("device '{device}' cannot be used")) && said.contains(why), "{said}");
        }
    }
}

#[test]
fn a_half_of_another_version_is_not_loaded() {
    let Some(machine) = Machine::new() else { return };
    let lib = machine.path("torch/lib");
    fs::create_dir_all(&lib).unwrap();
    for file in fs::read_dir(machine.cuda()).unwrap() {
        let file = file.unwrap().path();
        symlink(&file, lib.join(file.file_name().unwrap())).unwrap();
    }
    machine.write("torch/version.py", "__version__ = '2.10.0+cu130'\ncuda: Optional[str] = '13.0'\n");
    let machine = machine.without_cuda().with("CACO_LIBTORCH_CUDA", lib);
    let said = error(&bench(&machine, "cuda")).to_string();
    assert!(said.contains("belongs to PyTorch 2.10.0+cu130, and this program to 2.11.0; install"), "{said}");
    machine.write("torch/version.py", "__version__ = '2.11.0+cu126'\ncuda: Optional[str] = '12.6'\n");
    let said = error(&bench(&machine, "cuda")).to_string();
    assert!(said.contains("is built for CUDA 12, and libtorch_cpu.so for CUDA 13"), "{said}");
}

#[test]
fn cuda_visible_devices_restricts_and_renumbers() {
    let Some(machine) = Machine::new().map(|machine| machine.with("FAKE_CUDA_DEVICES", "4")) else { return };
    for visible in ["3", "2,3", "GPU-1a2b"] {
        let machine = Machine::new().unwrap().with("FAKE_CUDA_DEVICES", "4").with("CUDA_VISIBLE_DEVICES", visible);
        assert!(gpu(&bench(&machine, "cuda:0")).is_some(), "{visible}");
        let said = error(&bench(&machine, "cuda:2")).to_string();
        assert!(said.contains(&format!("(CUDA_VISIBLE_DEVICES={visible})")), "{said}");
    }
    assert!(gpu(&bench(&machine, "cuda:3")).is_some());
}

#[test]
fn the_class_names_what_decides_bits() {
    let Some(machine) = Machine::new() else { return };
    let report: Value = serde_json::from_str(&bench(&machine, "cuda").stdout).unwrap();
    let class = &report["class"];
    for (name, value) in [("cuda", "13.0"), ("cudnn", "9.19.0"), ("driver", "13.0"), ("gpu", "Fake H200")] {
        assert_eq!(class[name], value, "{class}");
    }
    assert_eq!((class["multiprocessors"].as_u64(), class["cublas"].as_u64()), (Some(132), Some(130_000)));
}

#[test]
fn the_doctor_multiplies_on_every_gpu() {
    let findings = |machine: &Machine| -> [Value; 2] {
        let done = machine.caco(&["doctor", "--json"]);
        let all: Vec<Value> = serde_json::from_str(&done.stdout).unwrap();
        ["GPU", "CUDA"].map(|what| all.iter().find(|finding| finding["what"] == what).cloned().unwrap_or_default())
    };
    let Some(machine) = Machine::new().map(|machine| machine.with("FAKE_CUDA_DEVICES", "2")) else { return };
    let [gpu, cuda] = findings(&machine);
    let found = gpu["found"].as_str().unwrap();
    assert!(gpu["ok"] == true && found.matches("Fake H200, 139.00 GiB, products within").count() == 2, "{gpu}");
    let file = machine.cuda().join("libtorch_cuda.so");
    let versions = format!("PyTorch 2.11.0+cu130, CUDA 13.0, cuDNN 9.19.0, driver for CUDA 13.0: {}", file.display());
    assert!(cuda["ok"] == true && cuda["found"] == *versions, "{cuda}");
    // What the fake copies back without computing is wrong.
    let [wrong, _] = findings(&Machine::new().unwrap().with("FAKE_CUDA_READ", "1"));
    assert!(wrong["ok"] == false && wrong["found"].as_str().unwrap().contains("multiplies wrongly"), "{wrong}");
    let [none, _] = findings(&Machine::new().unwrap().without_driver());
    assert!(none["ok"] == false && none["help"].is_null(), "{none}");
    assert!(none["found"].as_str().unwrap().starts_with("none, there is no NVIDIA driver"), "{none}");
    let [lost, _] = findings(&Machine::new().unwrap().without_cuda());
    assert!(lost["help"].as_str().unwrap().starts_with("install PyTorch 2.11.0 for CUDA 13"), "{lost}");
}
