//! What travels between the processes: tags, names, types.

use bytemuck::{AnyBitPattern, NoUninit};
use ringway::Schema;

/// The topic under which everything that people write is published.
pub const CHAT: &str = "chat";
/// The function that tells the weather.
pub const FORECAST: &str = "forecast";
/// The channel that the main process has registered.
pub const CONSOLE: &str = "console";
/// The key of the bot's settings.
pub const SETTINGS: &str = "settings";
/// The key that says which city `weather` is thinking about.
pub const THINKING: &str = "weather/thinking";
/// What the keys of people's messages begin with.
pub const SPOKEN: &str = "spoken/";

/// Tags of messages to and from `nonebot`.
pub mod tag {
    /// Somebody has written something; the answer has the same tag.
    pub const CHAT: u16 = 1;
    /// Something to know.
    pub const INFO: u16 = 2;
    /// Something to worry about.
    pub const WARNING: u16 = 3;
    /// A ticket: a channel to be opened, for a picture.
    pub const TICKET: u16 = 4;
}

/// What the bot is told to be like.
#[derive(Debug, PartialEq, Schema, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Settings {
    pub nickname: String,
    pub owners: Vec<String>,
}

/// Where the weather is asked for.
#[derive(Debug, Schema, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Question {
    pub city: String,
}

/// The weather.
#[derive(Debug, Clone, Copy, PartialEq, Schema, NoUninit, AnyBitPattern)]
#[repr(C)]
pub struct Forecast {
    /// In hundredths of a degree.
    pub temperature: i32,
    /// In percent.
    pub rain: u32,
}

/// What the weather is in this world.
pub fn forecast_of(city: &str) -> Forecast {
    let sum: u32 = city.bytes().map(u32::from).sum();
    Forecast { temperature: (sum % 4000) as i32 - 1000, rain: sum % 101 }
}

/// The key under which it is counted how often somebody has spoken.
pub fn spoken_key(user: &str) -> String {
    format!("{SPOKEN}{user}")
}

/// A picture for the bot.
pub fn picture() -> Vec<u8> {
    (0..1_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}
