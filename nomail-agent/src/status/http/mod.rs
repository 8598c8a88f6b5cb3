//! Metrics, health, the page and its JSON by HTTP.

mod exposition;
mod family;
#[cfg(test)]
mod golden;
mod history;
mod page;
mod process;
mod server;

pub use self::{
    history::{Chart, History},
    page::{SOURCES_SHOWN, View},
    server::{HttpServer, ProcessFiles},
};
