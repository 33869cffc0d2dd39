//! A server modeled on warp's chat example: a mutex, and a list with an unbounded channel for each
//! stream.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use peers::Chat;
use tokio::sync::mpsc::{unbounded_channel, UnboundedSender};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_stream::StreamExt;
use warp::hyper::body::Bytes;
use warp::http::StatusCode;
use warp::reply::{with_status, Reply};
use warp::sse::Event;
use warp::Filter;

struct Room {
    chat: Chat,
    streams: Mutex<Streams>,
    announce: bool,
}

type Streams = Vec<UnboundedSender<peers::Event>>;

impl Room {
    fn publish(&self, text: String) {
        self.send_all(&mut self.streams.lock().unwrap(), text);
    }

    fn send_all(&self, streams: &mut Streams, text: String) {
        let event = self.chat.number(text);
        // Sending fails for a stream whose client has left; it is removed.
        streams.retain(|stream| stream.send(event.clone()).is_ok());
    }
}

#[tokio::main]
async fn main() {
    let room = Arc::new(Room {
        chat: Chat::default(),
        streams: Mutex::default(),
        announce: peers::announces(),
    });
    let room = warp::any().map(move || room.clone());

    let list = warp::path!("users").and(warp::get()).and(room.clone());
    let list = list.map(|room: Arc<Room>| room.chat.list());

    let join = warp::path!("users" / String).and(warp::post()).and(room.clone());
    let join = join.map(|name, room: Arc<Room>| {
        let (new, answer) = room.chat.join(name);
        with_status(answer, if new { StatusCode::CREATED } else { StatusCode::OK })
    });

    let stream = warp::path!("chat" / String).and(warp::get()).and(room.clone()).map(stream);

    let say = warp::path!("chat" / String).and(warp::post()).and(warp::body::bytes()).and(room);
    let say = say.map(|name: String, text: Bytes, room: Arc<Room>| {
        let line = format!("{name}: {}", String::from_utf8_lossy(&text));
        room.publish(line.clone());
        line
    });

    warp::serve(list.or(join).or(stream).or(say)).incoming(peers::listener()).run().await;
}

fn stream(name: String, room: Arc<Room>) -> impl Reply {
    let (sender, receiver) = unbounded_channel();
    let mut streams = room.streams.lock().unwrap();
    streams.push(sender);
    if room.announce {
        room.send_all(&mut streams, peers::arrival(&name));
    }
    drop(streams);
    warp::sse::reply(UnboundedReceiverStream::new(receiver).map(|event: peers::Event| {
        Ok::<_, Infallible>(Event::default().id(event.id).event("message").data(event.text))
    }))
}
