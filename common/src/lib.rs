//! What two or more of the hasan programs share: the resource-agent contract, the one seam to the
//! machine, and one module for each noun of the field.

pub mod ocf;

pub mod aside;
pub mod chap;
pub mod config;
pub mod export;
pub mod flow;
pub mod iscsi;
pub mod leg_luns;
pub mod legs;
pub mod lio;
pub mod machine;
pub mod names;
pub mod pacemaker;
pub mod parallel;
pub mod processes;
pub mod zfs;
