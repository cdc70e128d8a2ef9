//! The keyspace from outside: against a slow obvious model, and with a million keys.

mod million;
mod model;
mod rig;
mod rules;
mod scenarios;
