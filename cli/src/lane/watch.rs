//! Follows a session on the controller, through interruptions.

use std::time::Duration;

use thinlane_model::SessionId;
use thinlane_wire::api::{ErrorCode, LiveEvent, SessionState, SessionView};
use tokio::sync::mpsc;

use crate::api::Client;
use crate::api::paths::{item, verb};

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What is seen from here.
#[derive(Debug)]
pub enum Seen {
    /// The session as it stands.
    Session(Box<SessionView>),
    /// The controller cannot be asked; the lane goes on until its deadline.
    Away,
    /// It can be asked again.
    Back,
    /// The log-in has ended; the lane goes on until its deadline.
    LoggedOut,
}

/// Follows a session until it has ended or nobody listens any more.
pub fn follow(client: Client, session: SessionId) -> mpsc::Receiver<Seen> {
    let (to, inbox) = mpsc::channel(64);
    tokio::spawn(async move {
        // Ends with the receiver; then nobody is interested.
        let _ = run(client, session, to).await;
    });
    inbox
}

/// The receiver is gone.
struct Unheard;

async fn run(client: Client, session: SessionId, to: mpsc::Sender<Seen>) -> Result<(), Unheard> {
    let tell = |seen| async { to.send(seen).await.map_err(|_| Unheard) };
    let mut away = false;
    let mut pause = Duration::from_millis(250);
    loop {
        // The stream begins with the session as it stands, so nothing is missed between two of them.
        match client.events(&verb("sessions", session, "events")).await {
            Ok(mut stream) => {
                if std::mem::take(&mut away) {
                    tell(Seen::Back).await?;
                }
                while let Ok(Some(data)) = stream.next().await {
                    pause = Duration::from_millis(250);
                    match serde_json::from_str(&data) {
                        Ok(LiveEvent::Session { session: view }) if view.id == session => {
                            let ended = view.state == SessionState::Ended;
                            tell(Seen::Session(view)).await?;
                            if ended {
                                return Ok(());
                            }
                        }
                        Ok(LiveEvent::Lagged) => {
                            if let Ok(view) = client.get::<SessionView>(&item("sessions", session)).await {
                                tell(Seen::Session(Box::new(view))).await?;
                            }
                        }
                        _ => {}
                    }
                }
            }
            Err(failure) if failure.is(ErrorCode::Unauthenticated) || failure.is(ErrorCode::Locked) => {
                tell(Seen::LoggedOut).await?;
                return Ok(());
            }
            Err(_) if !away => {
                away = true;
                tell(Seen::Away).await?;
            }
            Err(_) => {}
        }
        if to.is_closed() {
            return Err(Unheard);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
