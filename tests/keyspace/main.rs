//! The keyspace from outside: against a slow obvious model, through checkpoints, and with a million keys.

mod checkpoints;
mod million;
mod model;
mod plans;
mod rig;
mod rules;
mod scenarios;
