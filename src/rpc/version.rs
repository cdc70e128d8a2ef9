//! The versions this server claims: clients choose their behaviour by them.

/// The API level, as Status and `/version` tell it.
pub const SERVER: &str = "3.7.1";
/// The version all members have agreed on.
pub const CLUSTER: &str = "3.7.0";
/// The level of the stored data.
pub const STORAGE: &str = "3.7.0";
