//! What coordinator and worker both need of other people's servers: addresses, and the way to RabbitMQ.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "in a test, a panic is the report"))]

pub mod address;
pub mod amqp;
