"""``import netwarren.sandbox.auto`` enters the sandbox; put it before imports that start threads."""

from netwarren.sandbox.entry import Sandbox

Sandbox().enter()
