//! The plugin that takes what people write. It is not trusted.

use std::error::Error;
use std::time::Duration;

use ringway::channel::{ChannelOptions, Sender};
use ringway::error::RecvTimeoutError;
use ringway::host::{Plugin, Ticket};
use ringway::rpc::Client;
use ringway::store::Store;
use ringway::topic::Publisher;
use ringway::typed::{Archived, Pod};

use crate::wares::{
    CHAT, CONSOLE, FORECAST, Forecast, Question, SETTINGS, Settings, picture, spoken_key, tag,
};
use crate::weather;

pub const NAME: &str = "nonebot";
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it looks whether it is to stop, while nobody says anything.
const LOOK: Duration = Duration::from_millis(50);

/// What it works with.
struct Bot<'a> {
    plugin: &'a Plugin,
    store: Store,
    functions: Client,
    chat: Publisher,
    log: Sender,
    nickname: String,
}

pub fn run(plugin: &Plugin) -> Result<(), Box<dyn Error>> {
    let store = plugin.store()?;
    let nickname = {
        let settings = store.get_archived::<Settings>(SETTINGS)?.ok_or("no settings")?;
        settings.nickname.as_str().to_owned()
    };
    let mut console = plugin.open_channel(CONSOLE, &ChannelOptions::default(), PATIENCE)?;
    console.send(format!("{NAME} is process {}", std::process::id()).as_bytes())?;
    let (functions, chat) = (plugin.rpc_client()?, plugin.publisher(CHAT)?);
    let (active, passive) = plugin.take_channels()?;
    let (log, _) = passive.split();
    let (mut answers, mut chats) = active.split();
    let mut bot = Bot { plugin, store, functions, chat, log, nickname };
    loop {
        let message = match chats.recv_timeout(LOOK) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) if plugin.stop_requested().is_none() => continue,
            // It is told to stop, or the main process has let go of its end.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if message.tag() == tag::TICKET {
            let ticket =
                bytemuck::try_pod_read_unaligned::<Ticket>(&message).map_err(|_| "no ticket")?;
            bot.paint(&ticket)?;
            continue;
        }
        let line = String::from_utf8_lossy(&message).into_owned();
        if line.ends_with(": !restart") {
            bot.log.send_tagged(tag::WARNING, b"somebody wants me restarted")?;
            // Or the successor gets it again.
            chats.release();
            plugin.request_restart("asked for in the chat")?;
            plugin.wait_for_stop(PATIENCE).ok_or("nobody has told it to stop")?;
            return Ok(());
        }
        let answer = bot.answer(&line)?;
        answers.send_tagged(tag::CHAT, answer.as_bytes())?;
    }
}

impl Bot<'_> {
    fn answer(&mut self, line: &str) -> Result<String, Box<dyn Error>> {
        let (user, text) = line.split_once(": ").ok_or("nobody has said that")?;
        // Through the host: this process cannot write the storage.
        let spoken = self.store.fetch_add(spoken_key(user), 1)? + 1;
        self.chat.publish(line.as_bytes())?;
        if let Some(city) = text.strip_prefix("!weather ") {
            let question = Question { city: city.into() };
            let forecast: Forecast = self
                .functions
                .call_typed::<Archived<Question>, Pod<Forecast>>(FORECAST, &question, PATIENCE)?;
            return Ok(format!("{city}: {} % rain", forecast.rain));
        }
        if text == "!again" {
            self.plugin.restart_plugin(weather::NAME)?;
            return Ok("as you wish".into());
        }
        self.log.send_tagged(tag::INFO, format!("{user} has spoken {spoken} times").as_bytes())?;
        Ok(format!("{}: {user} said {text:?}", self.nickname))
    }

    /// Sends a picture over a channel of which it has got a ticket.
    fn paint(&mut self, ticket: &Ticket) -> Result<(), Box<dyn Error>> {
        let mut canvas = self.plugin.open_ticket(ticket, &ChannelOptions::default(), PATIENCE)?;
        canvas.send(&picture())?;
        // It stays until the other side has it.
        canvas.recv_timeout(PATIENCE)?;
        Ok(())
    }
}
