//! What happens, scene by scene, and what must come of it.

use std::error::Error;
use std::time::{Duration, Instant};

use ringway::channel::{ChannelOptions, Message};
use ringway::error::{ExitReason, RecvTimeoutError, SendError};
use ringway::host::{HostEventKind, Moment};
use ringway::rpc::CallError;
use ringway::typed::{Archived, Pod};

use crate::host::{Bot, PATIENCE};
use crate::wares::{
    FORECAST, Forecast, Question, SPOKEN, forecast_of, picture as expected_picture, spoken_key, tag,
};
use crate::{nonebot, weather};

type Outcome = Result<(), Box<dyn Error>>;

/// What people write in the first scene.
const LINES: usize = 300;
const PEOPLE: [&str; 3] = ["ada", "bob", "eve"];

/// Active channels, passive ones, and a topic.
pub fn conversation(bot: &mut Bot) -> Outcome {
    let mut hello = bot.console.accept(PATIENCE)?;
    let said = hello.recv_timeout(PATIENCE)?.to_vec();
    bot.checks.holds(
        "nonebot has found a channel by its name",
        said.starts_with(b"nonebot is process"),
    )?;

    let lines: Vec<_> = (0..LINES).map(|n| format!("{}: line {n}", PEOPLE[n % 3])).collect();
    let mut answers = 0;
    for line in &lines {
        let answer = bot.ask(line)?;
        answers += usize::from(answer.starts_with("Liteyuki: "));
    }
    bot.checks.same("every line has its answer, on the active channel", answers, LINES)?;
    let infos = (0..LINES).filter(|_| bot.infos.recv_timeout(PATIENCE).is_ok()).count();
    bot.checks.same("every line was told on the passive channel", infos, LINES)?;
    let heard: Vec<_> = (0..LINES).map_while(|_| bot.heard.recv_timeout(PATIENCE).ok()).collect();
    let heard: Vec<_> = heard.iter().map(|one| String::from_utf8_lossy(one).into_owned()).collect();
    bot.checks.same("every line was published to the main process, in order", heard, lines)?;
    let counted = bot.wait_for(weather::HEARD, LINES as i64)?;
    bot.checks.same("every line was published to the other plugin", counted, LINES as i64)
}

/// The storage.
pub fn storage(bot: &mut Bot) -> Outcome {
    let spoken = bot.integer(&spoken_key("ada"))?;
    bot.checks.same("a plugin that is not trusted has written through the host", spoken, 100)?;
    let default = bot.store.get_or("no such key", b"a default")?.to_vec();
    bot.checks.same("what is not there has a default", default, b"a default".to_vec())?;
    let missing = bot.store.delete_existing("no such key").is_err();
    bot.checks.holds("deleting what is not there can be an error", missing)?;
    let mut keys = Vec::new();
    for key in bot.store.get_all()?.into_keys() {
        keys.push(String::from_utf8(key)?);
    }
    let people = keys.iter().filter(|key| key.starts_with(SPOKEN)).count();
    bot.checks.same("everything can be had at once", people, PEOPLE.len())
}

/// Functions of other processes, and the ways in which calls fail.
pub fn functions(bot: &mut Bot) -> Outcome {
    let found = bot.forecast("Ulm", PATIENCE)?;
    bot.checks.same("the main process has called a plugin", found, forecast_of("Ulm"))?;
    let answer = bot.ask("eve: !weather Bern")?;
    let expected = format!("Bern: {} % rain", forecast_of("Bern").rain);
    bot.checks.same("a plugin has called a plugin", answer, expected)?;
    let unknown = bot.functions.call("no such function", b"", PATIENCE);
    bot.checks.holds("nobody serves that", matches!(unknown, Err(CallError::Unknown { .. })))?;
    let nowhere = bot.forecast(weather::NOWHERE, PATIENCE);
    bot.checks.holds("the function's own error", matches!(nowhere, Err(CallError::Failed(_))))?;
    let bytes = bot.functions.call(FORECAST, b"Ulm", PATIENCE);
    bot.checks.holds("other types", matches!(bytes, Err(CallError::WrongTypes { .. })))?;
    let late = bot.forecast(weather::FAR_AWAY, Duration::from_millis(20));
    bot.checks.holds("a time limit", matches!(late, Err(CallError::Timeout { .. })))?;
    let again = bot.forecast("Ulm", PATIENCE)?;
    bot.checks.same("nobody is stuck", again, forecast_of("Ulm"))
}

/// A channel that is sent through a channel.
pub fn picture(bot: &mut Bot) -> Outcome {
    let canvas = bot.host.unnamed_channel(&ChannelOptions::default())?;
    bot.tell(tag::TICKET, bytemuck::bytes_of(&canvas.ticket().ok_or("no ticket")?))?;
    let mut channel = canvas.accept(PATIENCE)?;
    let same = *channel.recv_timeout(PATIENCE)? == *expected_picture();
    channel.send(b"thanks")?;
    bot.checks.holds("a picture has come over a channel that was sent through a channel", same)
}

/// A plugin asks for a restart while there is work for it.
pub fn restart_asked_for(bot: &mut Bot) -> Outcome {
    let before = bot.nonebot.pid();
    bot.tell(tag::CHAT, b"eve: !restart")?;
    for n in 0..10 {
        bot.tell(tag::CHAT, format!("bob: while you were away {n}").as_bytes())?;
    }
    let reason = bot.event(nonebot::NAME, |event| match event {
        HostEventKind::RestartRequested { reason } => Some(reason.clone()),
        _ => None,
    })?;
    bot.checks.same("a plugin has asked for a restart", reason, "asked for in the chat".into())?;
    let warning = bot.warnings.recv_timeout(PATIENCE)?;
    bot.checks.same("and has said so before", warning, "somebody wants me restarted".into())?;
    let mut answers = 0;
    while answers < 10 {
        answers += usize::from(bot.answer()?.contains("while you were away"));
    }
    bot.checks.same("what was waiting has reached its successor", answers, 10)?;
    bot.checks.holds("which is another process", bot.nonebot.pid() != before)?;
    let mut line = bot.console.accept(PATIENCE)?;
    let hello = line.recv_timeout(PATIENCE)?.len();
    bot.checks.holds("and has found the channel again", hello > 0)?;
    let restarted = bot.moments.of(Moment::AfterRestart);
    bot.checks.same("hooks were told of it", restarted, vec![nonebot::NAME.to_owned()])
}

/// A plugin is killed in the middle of a call.
pub fn killed_at_work(bot: &mut Bot) -> Outcome {
    let forecasts = bot.integer(weather::FORECASTS)?;
    let question = Question { city: weather::FARTHER.into() };
    let mut call = bot
        .functions
        .start_typed::<Archived<Question>, Pod<Forecast>>(FORECAST, &question, PATIENCE)?;
    while bot.thinking.recv_timeout(PATIENCE)? != weather::FARTHER {}
    bot.checks.holds("a callback was told of a key's change", true)?;
    bot.weather.kill()?;
    let result = call.wait(PATIENCE);
    bot.checks
        .holds("who had called it is told of its death", matches!(result, Err(CallError::Died)))?;
    let reason = bot.event(weather::NAME, |event| match event {
        HostEventKind::Died { reason, .. } => Some(*reason),
        _ => None,
    })?;
    let killed = ExitReason::Signal(9);
    bot.checks.same("the host knows what it has died of", reason, killed)?;
    bot.restarted(weather::NAME)?;
    bot.functions.wait_for(FORECAST, PATIENCE)?;
    let found = bot.forecast("Ulm", PATIENCE)?;
    bot.checks.same("its successor can be called", found, forecast_of("Ulm"))?;
    let counted = bot.integer(weather::FORECASTS)?;
    bot.checks.same("the storage has what it had", counted, forecasts + 1)
}

/// A plugin has another one restarted.
pub fn restarted_by_the_other(bot: &mut Bot) -> Outcome {
    let before = bot.weather.pid();
    let answer = bot.ask("ada: !again")?;
    bot.checks.same("a plugin may have another one restarted", answer, "as you wish".into())?;
    bot.restarted(weather::NAME)?;
    bot.checks.holds("and it is", bot.weather.pid() != before)?;
    bot.functions.wait_for(FORECAST, PATIENCE)?;
    let answer = bot.ask("ada: !weather Rome")?;
    let expected = format!("Rome: {} % rain", forecast_of("Rome").rain);
    bot.checks.same("and works", answer, expected)
}

/// Everything comes to an end, in order.
pub fn the_end(bot: Bot) -> Outcome {
    let Bot { mut checks, host, moments, .. } = bot;
    let ended = host.shutdown(PATIENCE)?;
    let names: Vec<_> = ended.iter().map(|ended| ended.plugin.clone()).collect();
    let order = vec![nonebot::NAME.to_owned(), weather::NAME.to_owned()];
    checks.same("plugins end in the reverse order of their starts", names, order.clone())?;
    let well = ended.iter().all(|ended| ended.reason == Some(ExitReason::Code(0)));
    checks.holds("by themselves", well)?;
    checks.same("and hooks are told", moments.of(Moment::AfterShutdown), order)?;
    println!("all {} steps went as expected", checks.count());
    Ok(())
}

impl Bot {
    /// Tells `nonebot` what somebody has written, and waits for the answer.
    fn ask(&mut self, line: &str) -> Result<String, Box<dyn Error>> {
        self.tell(tag::CHAT, line.as_bytes())?;
        self.answer()
    }

    /// Sends `nonebot` a message; it may have been restarted.
    fn tell(&mut self, tag: u16, message: &[u8]) -> Outcome {
        match self.active.sender().send_tagged(tag, message) {
            Err(SendError::Restarted { .. }) => {}
            done => return Ok(done?),
        }
        Ok(self.active.sender().send_tagged(tag, message)?)
    }

    /// The next answer of `nonebot`, which may have been restarted.
    fn answer(&mut self) -> Result<String, Box<dyn Error>> {
        let text = |message: &Message<'_>| String::from_utf8_lossy(message).into_owned();
        match self.active.recv_timeout(PATIENCE) {
            Ok(message) => return Ok(text(&message)),
            Err(RecvTimeoutError::Restarted { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(text(&self.active.recv_timeout(PATIENCE)?))
    }

    fn forecast(&self, city: &str, timeout: Duration) -> Result<Forecast, CallError> {
        let question = Question { city: city.into() };
        self.functions.call_typed::<Archived<Question>, Pod<Forecast>>(FORECAST, &question, timeout)
    }

    /// An integer in the storage.
    fn integer(&self, key: &str) -> Result<i64, Box<dyn Error>> {
        Ok(self.store.get_pod::<i64>(key)?.map_or(0, |value| *value))
    }

    /// Waits until an integer in the storage is so large.
    fn wait_for(&self, key: &str, at_least: i64) -> Result<i64, Box<dyn Error>> {
        let mut watch = self.store.watch(key)?;
        loop {
            let found = self.integer(key)?;
            if found >= at_least {
                return Ok(found);
            }
            watch.wait(PATIENCE)?.ok_or_else(|| format!("{key} stays at {found}"))?;
        }
    }

    /// Waits until a plugin has been restarted.
    fn restarted(&self, plugin: &str) -> Outcome {
        self.event(plugin, |event| matches!(event, HostEventKind::Restarted { .. }).then_some(()))
    }

    /// The next event of a plugin, of which something can be made.
    fn event<T>(
        &self,
        plugin: &str,
        pick: impl Fn(&HostEventKind) -> Option<T>,
    ) -> Result<T, Box<dyn Error>> {
        let latest = Instant::now() + PATIENCE;
        while let Some(event) =
            self.host.next_event(latest.saturating_duration_since(Instant::now()))
        {
            if event.plugin == plugin
                && let Some(found) = pick(&event.kind)
            {
                return Ok(found);
            }
        }
        Err("an event has not come".into())
    }
}
