//! What is expected of `link`, as tests.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns, unshare};

use super::*;

/// Runs a test on a thread that has a network namespace of its own, which goes with the thread.
fn alone(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("root makes namespaces");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// What `ip` says in this thread's namespace. A child gets the namespace of the thread that makes it.
fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip runs");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

static NAMES: AtomicU32 = AtomicU32::new(0);

/// A TUN interface for as long as the file is open.
fn tun() -> (std::fs::File, String) {
    let name = format!("tl-t{}", NAMES.fetch_add(1, Ordering::Relaxed));
    (crate::sys::open_tun(&name, false).expect("a TUN interface"), name)
}

const ONE: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
const TWO: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

#[test]
fn an_interface_is_named_ours_and_comes_up_without_ipv6() {
    alone(|| {
        let (_tun, name) = tun();
        let mut link = Link::open().expect("rtnetlink");
        assert_eq!(link.ours().expect("a list"), vec![]);
        let index = link.set_up(&name, "thinlane lanes", 1380, 500).expect("set up");
        let wanted = Interface { name: name.clone(), index, alias: Some("thinlane lanes".into()), mtu: 1380, up: true };
        assert_eq!(link.ours().expect("a list"), vec![wanted.clone()]);
        assert_eq!(link.interface(&name).expect("found"), Some(wanted));
        let shown = ip(&format!("-d link show {name}"));
        assert!(
            shown.contains("mtu 1380") && shown.contains("qlen 500") && shown.contains("addrgenmode none"),
            "{shown}"
        );
        assert_eq!(ip(&format!("-6 addr show dev {name}")), "");
    });
}

#[test]
fn addresses_and_routes_come_and_go_and_both_can_be_repeated() {
    alone(|| {
        let (_tun, name) = tun();
        let mut link = Link::open().expect("rtnetlink");
        link.set_up(&name, "thinlane", 1420, 100).expect("set up");
        for _ in 0..2 {
            link.add_address(&name, ONE).expect("added");
            link.add_route(&name, TWO).expect("added");
        }
        assert_eq!(link.addresses(&name).expect("a list"), vec![(ONE, 32)]);
        assert_eq!(link.routes(&name).expect("a list"), vec![(TWO, 32)]);
        assert!(ip("route get 198.18.0.1").contains(&format!("dev {name} src 198.19.0.1")));
        assert_eq!(
            (link.remove_route(&name, TWO).expect("gone"), link.remove_route(&name, TWO).expect("gone")),
            (true, false)
        );
        assert_eq!(
            (link.remove_address(&name, ONE).expect("gone"), link.remove_address(&name, ONE).expect("gone")),
            (true, false)
        );
        assert_eq!((link.addresses(&name).expect("a list"), link.routes(&name).expect("a list")), (vec![], vec![]));
    });
}

#[test]
fn leftovers_are_found_and_deleted_and_strangers_are_not_ours() {
    alone(|| {
        let (_one, name) = tun();
        let (_two, stranger) = tun();
        let mut link = Link::open().expect("rtnetlink");
        link.set_up(&name, "thinlane ses_00000000", 1420, 100).expect("set up");
        link.set_up(&stranger, "my own vpn, not thinlane", 1420, 100).expect("set up");
        let ours: Vec<String> = link.ours().expect("a list").into_iter().map(|found| found.name).collect();
        assert_eq!(ours, std::slice::from_ref(&name));
        assert!(link.delete(&name).expect("deleted"));
        assert!(!link.delete(&name).expect("nothing to delete"));
        assert_eq!(link.ours().expect("a list"), vec![]);
        assert!(link.interface(&stranger).expect("found").is_some());
    });
}

#[test]
fn what_is_not_there_is_named() {
    alone(|| {
        let mut link = Link::open().expect("rtnetlink");
        let error = link.add_address("tl-none", ONE).expect_err("no such interface");
        assert_eq!(error.to_string(), "no interface tl-none");
        assert!(!link.remove_address("tl-none", ONE).expect("nothing to remove"));
        assert!(!link.remove_route("tl-none", ONE).expect("nothing to remove"));
        assert_eq!(link.interface("tl-none").expect("an answer"), None);
    });
}

#[test]
fn the_lan_side_of_an_address_is_found() {
    alone(|| {
        let (_lan, name) = tun();
        let mut link = Link::open().expect("rtnetlink");
        assert_eq!(link.reach([192, 168, 1, 10].into()).expect("an answer"), None);
        ip(&format!("addr add 192.168.1.1/24 dev {name}"));
        ip(&format!("link set {name} up"));
        ip("route add 10.9.0.0/16 via 192.168.1.254");
        ip("route add unreachable 10.8.0.0/16");
        let near = link.reach([192, 168, 1, 10].into()).expect("an answer").expect("a route");
        assert_eq!(near, Reach { interface: name.clone(), source: [192, 168, 1, 1].into(), router: None });
        let far = link.reach([10, 9, 1, 1].into()).expect("an answer").expect("a route");
        assert_eq!((far.interface, far.router), (name, Some([192, 168, 1, 254].into())));
        assert_eq!(link.reach([10, 8, 1, 1].into()).expect("an answer"), None);
        assert_eq!(link.reach([192, 168, 1, 1].into()).expect("an answer"), None, "its own address is no asset");
        assert_eq!(link.reach([192, 168, 1, 255].into()).expect("an answer"), None, "nor is a broadcast");
    });
}

#[test]
fn a_socket_stays_in_the_namespace_that_it_was_opened_in() {
    alone(|| {
        let here = std::fs::File::open("/proc/thread-self/ns/net").expect("proc");
        let (_tun, name) = tun();
        let mut link = Link::open().expect("rtnetlink");
        unshare(CloneFlags::CLONE_NEWNET).expect("root makes namespaces");
        assert!(link.interface(&name).expect("an answer").is_some());
        assert!(Link::open().and_then(|mut other| other.interface(&name)).expect("an answer").is_none());
        setns(here, CloneFlags::CLONE_NEWNET).expect("back");
    });
}

#[test]
fn rules_and_routes_of_a_lane_are_what_ip_shows_and_are_read_back_whole() {
    alone(|| {
        let (_tun, name) = tun();
        let mut link = Link::open().expect("rtnetlink");
        let index = link.set_up(&name, "thinlane", 1420, 100).expect("set up");
        let rules = [
            rules::Rule {
                priority: 540,
                from_interface: Some(name.clone()),
                table: Some(254),
                mark: Some((0x10, 0xf0)),
                ..Default::default()
            },
            rules::Rule {
                priority: 541,
                destination: Some(ONE),
                icmp: true,
                table: Some(70_000),
                ..Default::default()
            },
            rules::Rule {
                priority: 542,
                source: Some(Ipv4Addr::UNSPECIFIED),
                destination: Some(ONE),
                ..Default::default()
            },
        ];
        for rule in rules.iter().chain(&rules) {
            link.add_rule(rule).expect("added, and there once");
        }
        ip("rule add pref 600 to 10.0.0.1 table 9");
        let shown = ip("rule show");
        for line in [
            format!("540:\tfrom all fwmark 0x10/0xf0 iif {name} lookup main proto 84"),
            "541:\tfrom all to 198.19.0.1 ipproto icmp lookup 70000 proto 84".to_owned(),
            "542:\tfrom 0.0.0.0 to 198.19.0.1 unreachable proto 84".to_owned(),
        ] {
            assert!(shown.contains(&line), "{line} is not in:\n{shown}");
        }
        assert_eq!(link.our_rules().expect("a list"), rules);
        link.add_route_in(70_000, index, ONE).expect("added");
        assert_eq!(link.routes_in(70_000, index).expect("a list"), vec![ONE]);
        assert_eq!(link.routes(&name).expect("a list"), vec![], "the main table knows nothing of it");
        for rule in &rules {
            assert_eq!((link.remove_rule(rule).expect("gone"), link.remove_rule(rule).expect("gone")), (true, false));
        }
        assert_eq!(link.our_rules().expect("a list"), vec![]);
        assert!(ip("rule show").contains("to 10.0.0.1 lookup 9"), "a stranger's rule stays");
    });
}

#[test]
fn an_interfaces_frame_errors_are_read_and_one_that_is_gone_has_none() {
    alone(|| {
        let (file, name) = tun();
        let mut link = Link::open().expect("rtnetlink");
        let index = link.set_up(&name, "thinlane", 1420, 100).expect("set up");
        assert_eq!(link.frame_errors(index).expect("an answer"), Some(0));
        drop(file);
        assert_eq!(link.frame_errors(index).expect("an answer"), None);
    });
}

#[test]
fn a_kernel_without_wireguard_says_so_and_one_with_it_makes_the_interface() {
    alone(|| {
        let mut link = Link::open().expect("rtnetlink");
        match link.add_wireguard("tl-wg") {
            Ok(index) => assert_eq!(link.interface("tl-wg").expect("an answer").map(|found| found.index), Some(index)),
            Err(error) => assert!(error.is_one_of(&[libc::EOPNOTSUPP]), "{error}"),
        }
    });
}
