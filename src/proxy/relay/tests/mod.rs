//! The relay over fakes, with time that stands until a test moves it: how connections end, who waits for whom, what is
//! held.

mod closing;
mod compression;
mod content;
mod fixture;
mod judged;
mod rates;
mod recheck;
mod time;
mod tunnels;
