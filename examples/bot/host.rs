//! The main process: starts the plugins, and what it has to do with them all the time.

use std::env;
use std::error::Error;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringway::channel::{Channel, ChannelOptions, Message, Running};
use ringway::host::{
    ChannelListener, ControlAction, ControlRequest, Host, Moment, PluginHandle, PluginSpec, Restart,
};
use ringway::rpc::Client;
use ringway::store::{Change, Reacting, Store, StoreOptions};
use ringway::topic::{Listening, OwnedPublication, Publication, SubscribeOptions};

use crate::checks::Checks;
use crate::wares::{CHAT, CONSOLE, SETTINGS, Settings, THINKING, tag};
use crate::{nonebot, scenes, weather};

/// No answer takes so long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What hooks have been told of: which moment of whose life.
#[derive(Debug, Clone, Default)]
pub struct Moments(Arc<Mutex<Vec<(Moment, String)>>>);

impl Moments {
    fn add(&self, moment: Moment, plugin: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((moment, plugin.into()));
    }

    /// Of whom a moment has been told, in that order.
    pub fn of(&self, moment: Moment) -> Vec<String> {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.iter().filter(|told| told.0 == moment).map(|told| told.1.clone()).collect()
    }
}

/// Everything that the main process has.
pub struct Bot {
    pub checks: Checks,
    pub host: Host,
    pub store: Store,
    pub moments: Moments,
    pub weather: PluginHandle,
    pub nonebot: PluginHandle,
    /// To `nonebot`, with its answers.
    pub active: Channel,
    pub functions: Client,
    /// What `nonebot` has to say besides.
    pub infos: Receiver<String>,
    pub warnings: Receiver<String>,
    /// What has been published.
    pub heard: Receiver<OwnedPublication>,
    /// Which cities the weather is being found out of.
    pub thinking: Receiver<String>,
    pub console: ChannelListener,
    _passive: Running,
    _listening: Listening,
    _reacting: Reacting,
}

pub fn run() -> Result<(), Box<dyn Error>> {
    let mut bot = Bot::start()?;
    scenes::conversation(&mut bot)?;
    scenes::storage(&mut bot)?;
    scenes::functions(&mut bot)?;
    scenes::picture(&mut bot)?;
    scenes::restart_asked_for(&mut bot)?;
    scenes::killed_at_work(&mut bot)?;
    scenes::restarted_by_the_other(&mut bot)?;
    scenes::the_end(bot)
}

impl Bot {
    fn start() -> Result<Self, Box<dyn Error>> {
        let (mut checks, moments) = (Checks::default(), Moments::default());
        let host = host(&moments)?;
        let store = host.store()?;
        let settings = Settings { nickname: "Liteyuki".into(), owners: vec!["snowy".into()] };
        store.set_archived(SETTINGS, &settings)?;
        let console = host.register_channel(CONSOLE, &ChannelOptions::default())?;
        let again = host.register_channel(CONSOLE, &ChannelOptions::default());
        checks.holds("a name that is taken is refused", again.is_err())?;
        let (listening, heard) = listen(&host)?;

        let weather = host.spawn(trusted(spec(weather::NAME)?))?;
        let nonebot = host.spawn(spec(nonebot::NAME)?.may_control(is_restart_of_weather))?;
        let started = moments.of(Moment::AfterStart);
        checks.same(
            "both plugins are ready, and hooks were told",
            started,
            vec![weather::NAME.into(), nonebot::NAME.into()],
        )?;
        let (active, passive) = nonebot.take_channels()?;
        let (running, [infos, warnings]) = callbacks(passive)?;
        let (tell, thinking) = mpsc::channel();
        let reacting = store.on_change(THINKING, move |store: &Store, change: &Change| {
            let city = store.get(&change.key)?.map(|city| city.to_vec()).unwrap_or_default();
            Ok::<_, Box<dyn Error + Send + Sync>>(tell.send(String::from_utf8(city)?)?)
        })?;
        let functions = host.rpc_client()?;
        Ok(Self {
            checks,
            host,
            store,
            moments,
            weather,
            nonebot,
            active,
            functions,
            infos,
            warnings,
            heard,
            thinking,
            console,
            _passive: running,
            _listening: listening,
            _reacting: reacting,
        })
    }
}

fn host(moments: &Moments) -> Result<Host, Box<dyn Error>> {
    let mut builder = Host::builder()
        .store(StoreOptions { capacity_bytes: 8 << 20, ..StoreOptions::default() })
        .links()
        .process_control();
    for moment in [
        Moment::BeforeStart,
        Moment::AfterStart,
        Moment::BeforeRestart,
        Moment::AfterRestart,
        Moment::BeforeShutdown,
        Moment::AfterShutdown,
    ] {
        let moments = moments.clone();
        builder = builder
            .hook(moment, move |occasion| moments.add(occasion.moment, occasion.plugin.name()));
    }
    Ok(builder.build()?)
}

/// A plugin: this very program. It is started again whatever has ended it.
fn spec(name: &str) -> Result<PluginSpec, Box<dyn Error>> {
    // It has a second to end by itself before it gets a signal.
    let spec = PluginSpec::new(name, env::current_exe()?).notice(Duration::from_secs(1));
    Ok(spec.restart(Restart::on_failure()))
}

#[allow(unsafe_code)]
fn trusted(spec: PluginSpec) -> PluginSpec {
    // SAFETY: the plugin is this very program, which reaches the storage through this library only.
    unsafe { spec.trust_with_store() }
}

fn is_restart_of_weather(request: &ControlRequest<'_>) -> bool {
    request.action == ControlAction::Restart && request.plugin == weather::NAME
}

/// What calls callbacks, and what they pass on: infos and warnings.
type Told = (Running, [Receiver<String>; 2]);

/// Passive mode: everything that `nonebot` says goes where it belongs.
fn callbacks(channel: Channel) -> Result<Told, Box<dyn Error>> {
    let text = |message: &Message<'_>| String::from_utf8_lossy(message).into_owned();
    let (tell_info, infos) = mpsc::channel();
    let (tell_warning, warnings) = mpsc::channel();
    let (_, receiver) = channel.split();
    let running = receiver
        .passive()
        .on(|m: &Message<'_>| m.tag() == tag::INFO, move |m: &Message<'_>| tell_info.send(text(m)))
        .on(
            |m: &Message<'_>| m.tag() == tag::WARNING,
            move |m: &Message<'_>| tell_warning.send(text(m)),
        )
        .start()?;
    Ok((running, [infos, warnings]))
}

/// Everything that is published under the chat's topic.
fn listen(host: &Host) -> Result<(Listening, Receiver<OwnedPublication>), Box<dyn Error>> {
    let (tell, heard) = mpsc::channel();
    let listening = host.subscriber(CHAT, &SubscribeOptions::default())?.on_publication(
        |_: &Publication<'_>| true,
        move |publication: &Publication<'_>| tell.send(publication.to_owned()),
    )?;
    Ok((listening, heard))
}
