"""Streams of images through a session: files, cameras, a live page, MQTT, a cluster."""
