//! `nomail-agent top`: the status again and again, with rates.

mod model;
mod run;
mod view;

pub use self::run::run;
