//! One module for each command; none holds logic that the libraries lack.

pub mod approve;
pub mod build;
pub mod doctor;
pub mod evidence;
pub mod init;
pub mod ledger;
pub mod measure;
pub mod run;
pub mod secret;
pub mod serve;
pub mod service;
pub mod sign;
pub mod trace;
pub mod trust;
pub mod verify;
