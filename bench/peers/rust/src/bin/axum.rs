//! A server based on axum that broadcasts over one tokio broadcast channel.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::routing::{get, post};
use axum::Router;
use peers::Chat;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::{Stream, StreamExt};

/// The number of events by which a stream may fall behind without losing any, as in lobby.
const KEPT: usize = 4096;

struct Room {
    chat: Chat,
    events: broadcast::Sender<Arc<peers::Event>>,
    announce: bool,
    opening: Mutex<()>, // held while a stream is announced, for the streams before it only
}

type Shared = State<Arc<Room>>;

impl Room {
    fn publish(&self, text: String) {
        // An error means that there is no stream.
        let _ = self.events.send(Arc::new(self.chat.number(text)));
    }

    fn subscribe(&self, name: &str) -> broadcast::Receiver<Arc<peers::Event>> {
        if !self.announce {
            return self.events.subscribe();
        }
        let _opening = self.opening.lock().unwrap();
        let events = self.events.subscribe();
        self.publish(peers::arrival(name));
        events
    }
}

#[tokio::main]
async fn main() {
    let (events, _) = broadcast::channel(KEPT);
    let room = Arc::new(Room {
        chat: Chat::default(),
        events,
        announce: peers::announces(),
        opening: Mutex::default(),
    });
    let router = Router::new()
        .route("/users", get(list))
        .route("/users/{name}", post(join))
        .route("/chat/{name}", get(stream).post(say))
        .with_state(room);
    axum::serve(peers::listener(), router).await.unwrap();
}

async fn list(State(room): Shared) -> String {
    room.chat.list()
}

async fn join(State(room): Shared, Path(name): Path<String>) -> (StatusCode, String) {
    let (new, answer) = room.chat.join(name);
    (if new { StatusCode::CREATED } else { StatusCode::OK }, answer)
}

async fn say(State(room): Shared, Path(name): Path<String>, text: String) -> String {
    let line = format!("{name}: {text}");
    room.publish(line.clone());
    line
}

async fn stream(
    State(room): Shared,
    Path(name): Path<String>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let events = room.subscribe(&name);
    Sse::new(BroadcastStream::new(events).filter_map(|event| {
        let event = event.ok()?; // an error says how many were lost
        Some(Ok(Event::default().id(&event.id).event("message").data(&event.text)))
    }))
}
