//! The shared store in adversity, as callers of the API see it: faults of Redis and of the way to it ([`faults`],
//! [`failover`]), several coordinators ([`coordinators`]), and values of another release ([`versions`]).

mod acknowledged;
mod coordinators;
mod failover;
mod faults;
mod front;
mod moving;
mod unreached;
mod versions;
