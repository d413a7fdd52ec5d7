//! The shared store in adversity, as callers of the API see it: faults of Redis and of the way to it ([`faults`],
//! [`failover`]), several coordinators ([`coordinators`], [`presence`]), copies that went
//! astray ([`queues`]), leases that found no room in an answer ([`given_back`]) or were taken over at another coordinator
//! ([`takeover`]), tasks that were handed off there ([`handed_off`]), values of another release ([`versions`]) or damaged ones
//! ([`unreadable`]), what tasks saved ([`checkpoints`]) and agents lost ([`lost`]), and how much one call of Redis may be asked ([`bounds`]).

mod acknowledged;
mod bounds;
mod checkpoints;
mod coordinators;
mod failover;
mod faults;
mod front;
mod gates;
mod given_back;
mod handed_off;
mod lost;
mod moving;
mod presence;
mod queues;
mod takeover;
mod unreached;
mod unreadable;
mod versions;
