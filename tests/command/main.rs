//! Whole commands: what the user sees when all is well and when it is not.

mod background;
mod bad_kernel;
mod bad_root;
mod bad_spec;
mod bad_stdio;
mod bad_usage;
mod doctor;
mod dry_run;
mod exec;
mod explain;
mod floors;
mod full_disk;
mod json;
mod kernel_build;
mod kernel_fetch;
mod kernel_store;
mod linux_guest;
mod microvm_boot;
mod plain_user;
mod run;
mod running;
mod schema;
mod starters;
mod tiny_guest;
mod unavailable;
mod volumes;
