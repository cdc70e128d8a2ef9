//! Every planted defect is found, from unrelated seeds, under the ordinary conditions.

use kontiki::base::planted::{Defect, Planted};
use kontiki::sim::{Options, run};

/// How many seeds must find a defect.
const FOUND_BY: usize = 3;
/// Among so many.
const SEEDS: u64 = 60;

/// Goal: each defect is found by several seeds.
#[test]
fn every_defect_is_found() {
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for &defect in Defect::ALL {
        let finds = |seed: &u64| {
            let options = Options {
                members: if defect.needs_peers() { 3 } else { 1 },
                planted: Planted::one(defect),
                ..Options::of_seed(*seed)
            };
            run(options).violation.is_some()
        };
        let found: Vec<u64> = (1..=SEEDS).filter(finds).take(FOUND_BY).collect();
        println!("{defect:?}: {found:?}");
        if found.len() < FOUND_BY {
            missed.push(defect);
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
