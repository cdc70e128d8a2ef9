//! The log over byte slices: every crash and every kind of damage that a disk can leave behind, and
//! the outcome each of them must have.

mod anew;
mod appender;
mod cut;
mod disk;
mod files;
mod golden;
mod model;
mod rebuild;
mod scrub;
mod sectors;
