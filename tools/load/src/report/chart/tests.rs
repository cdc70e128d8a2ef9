//! Scales and ticks, and pictures of numbers that are none.

use super::scale::{Placed, percent};
use super::strip::quantile;
use super::*;
use crate::report::Unit;

// Goal: ticks are round, cover the values and are few, on each scale.
#[test]
fn ticks() {
    let check = |scale: Scale, values: &[f64], expected: &[f64]| {
        let axis = Axis::new("", Unit::Ratio, scale);
        let placed = Placed::new(&axis, values.iter().copied(), 0.0, 100.0).expect("drawable");
        let ticks: Vec<f64> = placed.ticks.iter().map(|(value, _)| *value).collect();
        assert_eq!(
            ticks.len(),
            expected.len(),
            "{scale:?} {values:?}: {ticks:?}"
        );
        for (tick, expected) in ticks.iter().zip(expected) {
            assert!(
                (tick - expected).abs() <= expected.abs() * 1e-9,
                "{ticks:?}"
            );
        }
        for value in values {
            let at = placed.place(*value).expect("in the domain");
            assert!((-0.001..=100.001).contains(&at), "{value} at {at}");
        }
    };
    check(Scale::Linear, &[3.0, 9.5], &[0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
    check(Scale::Linear, &[0.0], &[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]);
    check(Scale::Log, &[15.0, 60.0], &[10.0, 20.0, 30.0, 50.0, 70.0]);
    check(Scale::Log, &[10.0], &[10.0, 20.0]);
    check(
        Scale::Log,
        &[15.0, 4_000.0],
        &[10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3],
    );
    check(
        Scale::Log,
        &[1.0, 1e12],
        &[1.0, 1e2, 1e4, 1e6, 1e8, 1e10, 1e12],
    );
    check(Scale::Nines, &[0.0, 0.9995], &[0.0, 0.5, 0.9, 0.99, 0.999]);
}

// Goal: percentiles show as many digits as they have nines.
#[test]
fn percents() {
    let check = |share: f64, expected: &str| assert_eq!(percent(share), expected);
    check(0.0, "0%");
    check(0.5, "50%");
    check(0.9, "90%");
    check(0.99, "99%");
    check(0.999, "99.9%");
    check(0.99999, "99.999%");
}

// Goal: a quantile is a value that occurred.
#[test]
fn quantiles() {
    let check = |share: f64, expected: Option<f64>| {
        assert_eq!(quantile(&[3.0, 1.0, 2.0, f64::NAN, 4.0], share), expected);
    };
    check(0.5, Some(2.0));
    check(0.99, Some(4.0));
    check(0.0, Some(1.0));
    assert_eq!(quantile(&[], 0.5), None);
}

// Goal: every picture is drawn or says that it is empty, whatever numbers it gets.
#[test]
fn pictures_of_anything() {
    let odd = [f64::NAN, f64::INFINITY, -1.0, 0.0, 1e-300, 1e300, 5.0, 5.0];
    for used in 0..=odd.len() {
        let values = &odd[..used];
        for scale in [Scale::Linear, Scale::Log, Scale::Nines] {
            let axis = || Axis::new("axis", Unit::Nanoseconds, scale);
            let charts = [
                Chart::Line(LineChart {
                    title: "line".to_owned(),
                    x: axis(),
                    y: axis(),
                    lines: vec![Line {
                        name: "line".to_owned(),
                        colour: 9,
                        stroke: Stroke::Solid,
                        points: values.iter().map(|value| (*value, *value)).collect(),
                    }],
                }),
                Chart::Strips(StripChart {
                    title: "strips".to_owned(),
                    axis: axis(),
                    strips: vec![Strip {
                        name: "strip".to_owned(),
                        values: values.to_vec(),
                    }],
                }),
                Chart::Bars(BarChart {
                    title: "bars".to_owned(),
                    unit: Unit::Bytes,
                    parts: vec!["only".to_owned()],
                    bars: vec![Bar {
                        name: "bar".to_owned(),
                        values: values.to_vec(),
                    }],
                }),
                Chart::Ratios(RatioChart {
                    title: "ratios".to_owned(),
                    rows: vec![RatioRow {
                        name: "row".to_owned(),
                        ratios: values.to_vec(),
                        median: values.first().copied().unwrap_or(f64::NAN),
                        better: Better::Lower,
                    }],
                }),
                Chart::Heat(HeatMap {
                    title: "heat".to_owned(),
                    x: ("x".to_owned(), values.iter().map(f64::to_string).collect()),
                    y: ("y".to_owned(), vec!["row".to_owned(), "empty".to_owned()]),
                    unit: Unit::Nanoseconds,
                    cells: vec![
                        values
                            .iter()
                            .map(|value| {
                                Some(HeatCell {
                                    value: *value,
                                    note: String::new(),
                                })
                            })
                            .collect(),
                    ],
                }),
            ];
            for chart in charts {
                let mut page = String::new();
                chart.to_element().write(&mut page);
                let sound = roxmltree::Document::parse(&page);
                assert!(sound.is_ok(), "{scale:?} {values:?}: {page}");
                assert!(!page.contains("NaN\"") && !page.contains("inf\""), "{page}");
            }
        }
    }
}

// Goal: a ratio is good or bad only if all pairs agree.
#[test]
fn verdicts() {
    let check = |better: Better, ratios: &[f64], expected: Option<bool>| {
        assert_eq!(better.verdict(ratios), expected, "{better:?} {ratios:?}");
    };
    check(Better::Lower, &[0.2, 0.3], Some(true));
    check(Better::Lower, &[2.0, 3.0], Some(false));
    check(Better::Lower, &[0.9, 1.1], None);
    check(Better::Higher, &[5.0, 4.0], Some(true));
    check(Better::Higher, &[1.0, 1.0], None);
    check(Better::Higher, &[], None);
}
