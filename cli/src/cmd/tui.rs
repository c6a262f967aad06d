//! `thinlane tui`: the operator's screen, with its terminal, its connection and what it does.

mod deeds;
mod feed;
mod terminal;

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use thinlane_model::{Boot, Now, SessionId};
use thinlane_tui::act::Deed;
use thinlane_tui::decode::{Decoder, Typed};
use thinlane_tui::pace::Pace;
use thinlane_tui::page::Found;
use thinlane_tui::text::Tone;
use thinlane_tui::{Answer, App, Config, Effect, Glyphs, Input, View};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::context::Context;
use crate::failure::{Exit, Failure, Result, plain};
use crate::home::read_bounded;
use crate::lane::activate::boot_clock;
use crate::lane::{Signal, Signals};
use crate::out::time;
use crate::system::terminal::{Resized, UNICODE};
use terminal::Screen;

/// Inputs that may wait; a full queue holds the stream back, and a stream that was held back says so.
const WAITING: usize = 1024;
/// Inputs that are taken in one go.
const AT_ONCE: usize = 2048;
/// How long an orderly end may take after a signal.
const AT_LAST: Duration = Duration::from_secs(3);
/// How long the terminal has at the end for an answer that it owes: later it would stand behind the shell's prompt.
const LAST_ANSWER: Duration = Duration::from_millis(1_000);

#[derive(Args)]
pub struct Tui {
    /// Print one picture and leave: the list as text, or everything as one object with --json
    #[arg(long)]
    once: bool,
    /// Begin with this list
    #[arg(long, value_name = "VIEW", default_value = "sessions", value_parser = ["sessions", "requests", "sites", "alarms", "log"])]
    view: String,
    /// Begin with this filter, as the key / takes it
    #[arg(long, value_name = "WORDS", default_value = "")]
    filter: String,
}

pub async fn run(context: &Context, args: Tui) -> Result<()> {
    let app = app(context, &args)?;
    if args.once {
        return once(context, app).await;
    }
    if context.out.json {
        return Err(Failure::usage("a live screen is no JSON").next("thinlane tui --once --json"));
    }
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return Err(
            Failure::usage("thinlane tui needs a terminal").next("thinlane tui --once   # one picture, for scripts")
        );
    }
    // A log-in that has ended is told before the screen changes.
    let hello = feed::hello(context).await?;
    Box::pin(Shell::start(context, app, hello)?.run()).await
}

fn app(context: &Context, args: &Tui) -> Result<App> {
    let file = context.home.tui_file();
    let refuse = |why: String| {
        Failure::new(Exit::Usage, format!("{}: {why}", file.display())).next("man thinlane-config; or remove the file")
    };
    let config = match read_bounded(&file, 64 * 1024)? {
        Some(text) => Config::parse(&text).map_err(|error| refuse(error.to_string()))?,
        None => Config::default(),
    };
    let glyphs = Glyphs { unicode: UNICODE || Glyphs::utf8_here(), colour: context.out.colour };
    let mut app = App::new(config, glyphs, jiff::tz::TimeZone::system()).map_err(|error| refuse(error.to_string()))?;
    app.view = View::from_word(&args.view).unwrap_or(View::Sessions);
    app.set_filter(app.view, &args.filter);
    Ok(app)
}

/// One picture: the snapshot and the newest entries of the log.
async fn once(context: &Context, mut app: App) -> Result<()> {
    let client = context.client()?;
    let now = now();
    app.take(feed::hello(context).await?, now);
    app.take(Input::Snapshot(Box::new(client.get("/overview").await?)), now);
    match feed::newest(&client).await {
        Ok(entries) => app.take(Input::Entries(entries), now),
        Err(failure) if failure.exit == Exit::Denied => app.take(Input::LogReadable(false), now),
        Err(failure) => return Err(failure),
    }
    if context.out.json {
        return context.out.object(&thinlane_tui::once::object(&app, now));
    }
    let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let width = terminal::size().map(|size| size.0).or(columns).unwrap_or(120);
    context.out.line(&thinlane_tui::once::text(&mut app, width.clamp(50, 500), now))
}

fn now() -> Now {
    Now { mono: boot_clock(), wall: time::now() }
}

/// Ends the program some time after a signal if it has not ended by itself: a terminal that reads nothing any more holds
/// a write for ever, and with it whoever would answer the signal.
fn end_at_last(mut signals: Signals) {
    tokio::spawn(async move {
        let signal = signals.next().await;
        tokio::time::sleep(AT_LAST).await;
        terminal::cook();
        std::process::exit(signal.exit().code().into());
    });
}

/// What came back from a task.
enum Back {
    Answer(Box<Answer>),
    Found(SessionId, Box<std::result::Result<Found, String>>),
}

/// The screen at work.
struct Shell<'a> {
    context: &'a Context,
    app: App,
    screen: Screen,
    pace: Pace,
    inputs: mpsc::Receiver<Input>,
    keys: mpsc::Receiver<Vec<u8>>,
    decoder: Decoder,
    /// When the terminal said something last.
    heard: Instant,
    /// What the person looks at was sent, and is on the screen when the terminal says so.
    sent_first: bool,
    resized: Resized,
    back: (mpsc::Sender<Back>, mpsc::Receiver<Back>),
    resync: std::sync::Arc<tokio::sync::Notify>,
    signals: Signals,
}

impl<'a> Shell<'a> {
    fn start(context: &'a Context, mut app: App, hello: Input) -> Result<Self> {
        let signals = Signals::catch()?;
        app.take(hello, now());
        let (to_app, inputs) = mpsc::channel(WAITING);
        let resync = std::sync::Arc::new(tokio::sync::Notify::new());
        feed::start(context, &to_app, &resync);
        let mut pace = Pace::new(app.config().bytes_per_second);
        let resized = Resized::watch().map_err(|error| Failure::failed(format!("catch signals: {}", plain(&error))))?;
        end_at_last(Signals::catch()?);
        let (screen, keys) = Screen::open()?;
        pace.asked(boot_clock());
        Ok(Self {
            context,
            app,
            screen,
            pace,
            inputs,
            keys,
            decoder: Decoder::default(),
            heard: Instant::now(),
            sent_first: false,
            resized,
            back: mpsc::channel(64),
            resync,
            signals,
        })
    }

    async fn run(mut self) -> Result<()> {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let pause = self.pace.due().map(|due| now().mono.until(due).to_std());
            // From the last byte on: what the world says meanwhile does not begin it again.
            let settles = self.decoder.patience().map(|patience| self.heard + Duration::from_millis(patience));
            tokio::select! {
                biased;
                signal = self.signals.next() => {
                    if signal != Signal::HangUp {
                        self.last_answer().await;
                    }
                    return Err(Failure::silent(signal.exit()));
                }
                bytes = self.keys.recv() => {
                    // The terminal is gone.
                    let Some(bytes) = bytes else { return Err(Failure::silent(Exit::Other(129))) };
                    self.heard = Instant::now();
                    for typed in self.decoder.take(&bytes) {
                        if self.typed(typed)? {
                            self.last_answer().await;
                            return Ok(());
                        }
                    }
                }
                Some(_) = self.resized.next() => {
                    self.screen.forget();
                    self.pace.pressed();
                }
                () = tokio::time::sleep_until(settles.unwrap_or(self.heard)), if settles.is_some() => {
                    if let Some(typed) = self.decoder.settle() {
                        self.typed(typed)?;
                    }
                }
                Some(back) = self.back.1.recv() => self.came_back(back),
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => self.draw()?,
                Some(input) = self.inputs.recv() => {
                    let now = now();
                    self.app.take(input, now);
                    for _ in 1..AT_ONCE {
                        let Ok(input) = self.inputs.try_recv() else { break };
                        self.app.take(input, now);
                    }
                    self.pace.changed();
                }
                _ = second.tick() => {
                    let effects = self.app.tick(now());
                    self.carry_out(effects)?;
                    self.pace.changed();
                }
            }
        }
    }

    /// Takes what the terminal said; `true`: leave.
    fn typed(&mut self, typed: Typed) -> Result<bool> {
        match typed {
            Typed::Arrived => {
                self.pace.arrived(boot_clock());
                if self.sent_first {
                    self.app.arrived();
                }
                return Ok(false);
            }
            Typed::Key(key) => {
                self.pace.pressed();
                let effects = self.app.press(key, now());
                return self.carry_out(effects);
            }
            Typed::Paste(text) => self.app.paste(&text),
        }
        self.pace.pressed();
        Ok(false)
    }

    /// Waits for the answer that the terminal still owes.
    async fn last_answer(&mut self) {
        let answer = async {
            while self.pace.is_under_way() && self.pace.asks() {
                let Some(bytes) = self.keys.recv().await else { return };
                if self.decoder.take(&bytes).contains(&Typed::Arrived) {
                    return;
                }
            }
        };
        // Whatever does not come in time stays the terminal's.
        let _ = tokio::time::timeout(LAST_ANSWER, answer).await;
    }

    /// Does what the screen asks for; `true`: leave.
    fn carry_out(&mut self, effects: Vec<Effect>) -> Result<bool> {
        for effect in effects {
            match effect {
                Effect::Quit => return Ok(true),
                Effect::Redraw => self.screen.forget(),
                Effect::Resync => self.resync.notify_one(),
                Effect::Save(text) => {
                    if let Err(failure) = self.context.home.write(&self.context.home.tui_file(), text.as_bytes()) {
                        self.app.say(failure.message, Tone::Bad, now());
                    }
                }
                Effect::Look(id) => {
                    let (context, to) = (self.context.clone(), self.back.0.clone());
                    tokio::spawn(async move {
                        let found = feed::look(&context, id).await.map_err(|failure| failure.message);
                        // The screen is gone: nobody is there to be told.
                        let _ = to.send(Back::Found(id, Box::new(found))).await;
                    });
                }
                Effect::Act { deed, .. } => {
                    let (context, to, resync) = (self.context.clone(), self.back.0.clone(), self.resync.clone());
                    tokio::spawn(async move {
                        let new_login = matches!(deed, Deed::LogIn { .. });
                        let answer = deeds::perform(&context, deed).await;
                        if new_login {
                            // It need not wait for the next try.
                            resync.notify_one();
                        }
                        let _ = to.send(Back::Answer(Box::new(answer))).await;
                    });
                }
            }
        }
        Ok(false)
    }

    fn came_back(&mut self, back: Back) {
        match back {
            Back::Answer(answer) => self.app.told(*answer, now()),
            Back::Found(id, found) => self.app.found(id, *found),
        }
        self.pace.pressed();
    }

    fn draw(&mut self) -> Result<()> {
        // Some task has panicked: the terminal is the person's again, and what was said stands on it.
        if terminal::has_panicked() {
            return Err(Failure::silent(Exit::Failure));
        }
        let now = now();
        let sent = self.screen.show(&mut self.app, self.pace.most(), self.pace.asks(), now)?;
        self.pace.drawn(sent.bytes, sent.whole, Boot(boot_clock().0.max(now.mono.0)));
        self.sent_first = sent.first;
        if sent.first && !self.pace.is_under_way() {
            self.app.arrived();
        }
        Ok(())
    }
}
