mod facts;
mod machine;
mod profile;
mod ready;
