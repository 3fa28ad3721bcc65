//! The plugin that tells the weather. It is trusted with the storage.

use std::error::Error;
use std::time::Duration;

use ringway::host::Plugin;
use ringway::rpc::Failure;
use ringway::topic::{Publication, SubscribeOptions};
use ringway::typed::{Archived, Pod};

use crate::wares::{CHAT, FORECAST, Forecast, Question, THINKING, forecast_of};

pub const NAME: &str = "weather";
/// Where it takes for ever to find out.
pub const FAR_AWAY: &str = "Ultima Thule";
/// There, too.
pub const FARTHER: &str = "Kadath";
/// Where there is no weather.
pub const NOWHERE: &str = "Nowhere";
/// The key that counts what has been heard in the chat.
pub const HEARD: &str = "weather/heard";
/// The key that counts forecasts.
pub const FORECASTS: &str = "weather/forecasts";

pub fn run(plugin: &Plugin) -> Result<(), Box<dyn Error>> {
    let (heard, told) = (plugin.store()?, plugin.store()?);
    let chat = plugin.subscriber(CHAT, &SubscribeOptions::default())?;
    let listening = chat.on_publication(
        |_: &Publication<'_>| true,
        move |_: &Publication<'_>| heard.fetch_add(HEARD, 1).map(drop),
    )?;
    let server = plugin
        .rpc_server()?
        .typed::<Archived<Question>, Pod<Forecast>>(FORECAST, move |question, request| {
            let city = question.city.as_str();
            if city == NOWHERE {
                return Err(Failure::from("there is no weather"));
            }
            let failed = |_| Failure::from("no storage");
            told.set(THINKING, city.as_bytes()).map_err(failed)?;
            while [FAR_AWAY, FARTHER].contains(&city) && !request.is_cancelled() {
                std::thread::sleep(Duration::from_millis(1));
            }
            told.fetch_add(FORECASTS, 1).map_err(|_| Failure::from("no storage"))?;
            Ok(forecast_of(city))
        })
        .start()?;
    plugin.ready()?;
    while plugin.wait_for_stop(Duration::from_secs(60)).is_none() {}
    server.stop(Duration::from_secs(1))?;
    listening.stop()?;
    Ok(())
}
