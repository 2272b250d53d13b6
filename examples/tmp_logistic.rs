use tch::*; use caco::eval::logistic::*; use std::time::Instant;
fn main(){
  tch::set_num_threads(2);
  for f in std::env::args().skip(1) {
    let t = Tensor::read_safetensors(&f).unwrap();
    let get=|n:&str| t.iter().find(|(k,_)|k==n).unwrap().1.shallow_clone();
    let (x,y)=(get("features"),get("labels")); let k=y.max().int64_value(&[])+1;
    for lam in [1.0,1000.0]{
      let t=Instant::now();
      let mut r=Regression::new(&x,&y,k).unwrap();
      let t0=t.elapsed().as_secs_f64();
      let fit=r.fit(lam,1e-9).unwrap();
      println!("{f} {lam}: {:.2}s (setup {t0:.2}) obj {:.10} steps {} ev {}",t.elapsed().as_secs_f64(),fit.objective,fit.steps,fit.evaluations);
    }
  }
}
