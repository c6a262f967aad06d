//! A place that cannot keep the identity is found before the one-time code is spent on one.

use std::net::TcpListener;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// Whoever calls there could have been told a code.
struct Controller {
    address: String,
    calls: Arc<AtomicU32>,
}

impl Controller {
    /// Hangs up on everybody: an enrolment gets as far as that, and no further.
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("bound").to_string();
        let calls = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&calls);
        thread::spawn(move || {
            for call in listener.incoming() {
                counted.fetch_add(1, Ordering::SeqCst);
                drop(call);
            }
        });
        Self { address, calls }
    }

    fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }
}

/// Enrols with a state directory that was mounted as the script says, in a mount namespace of its own; the last lines of its
/// standard output are what lies there afterwards.
fn enroll(controller: &Controller, mount: &str) -> Output {
    let place = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(place.path().join("state")).expect("made");
    std::fs::write(place.path().join("code"), "abcde-fghij\n").expect("written");
    let script = format!(
        "set -e; cd \"$1\"; {mount}; set +e
         \"$2\" enroll --dir \"$1/state\" --run-dir \"$1/run\" --controller {} --ca-fingerprint sha256:{} --token-file code
         code=$?; ls -A state; exit $code",
        controller.address,
        "0".repeat(64)
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh"]).arg(place.path()).arg(env!("CARGO_BIN_EXE_thinlane-agent"));
    command.output().expect("these tests run as root, with util-linux")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_small_place_with_room_is_good_enough_and_the_proof_leaves_nothing_there() {
    let controller = Controller::start();
    let done = enroll(&controller, "mount -t tmpfs -o mode=700,size=64k none state");
    assert_eq!((done.status.code(), controller.calls()), (Some(6), 1), "{}", said(&done));
    assert_eq!(String::from_utf8_lossy(&done.stdout), "");
}

#[test]
fn a_full_place_is_named_before_the_controller_hears_of_the_code() {
    let controller = Controller::start();
    let fill = "mount -t tmpfs -o mode=700,size=64k none state; head -c 45056 /dev/urandom >state/full";
    let done = enroll(&controller, fill);
    assert_eq!((done.status.code(), controller.calls()), (Some(1), 0), "{}", said(&done));
    assert!(said(&done).contains("there is no room for the identity in "), "{}", said(&done));
    assert!(said(&done).contains("the code was not used: make 32 KB of room there"), "{}", said(&done));
    assert_eq!(String::from_utf8_lossy(&done.stdout), "full\n");
}

#[test]
fn a_read_only_place_is_named_before_the_controller_hears_of_the_code() {
    let controller = Controller::start();
    let done = enroll(&controller, "mount --bind state state; mount -o remount,bind,ro state");
    assert_eq!((done.status.code(), controller.calls()), (Some(1), 0), "{}", said(&done));
    assert!(said(&done).contains("is read-only: the identity cannot be kept there"), "{}", said(&done));
    assert!(said(&done).contains("the code was not used"), "{}", said(&done));
}

#[test]
fn a_place_that_would_have_to_be_made_on_a_read_only_disk_is_named_as_well() {
    let controller = Controller::start();
    let read_only = "rmdir state; mount -t tmpfs -o ro none \"$1\"; cd \"$1\"";
    let done = enroll(&controller, read_only);
    assert_eq!(controller.calls(), 0);
    assert!(said(&done).contains("is read-only"), "{}", said(&done));
}
