//! The shared store in adversity, as callers of the API see it: faults of Redis and of the way to it ([`faults`],
//! [`failover`]), several coordinators ([`coordinators`], [`presence`]), and values of another release ([`versions`]).

mod coordinators;
mod failover;
mod faults;
mod front;
mod presence;
mod versions;
