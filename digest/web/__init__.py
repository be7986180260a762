"""The web door: public pages, feeds, the look at captured mail, health. Owner of the ASGI framework.

app      what stands in front of what, health, `serve`
guards   hosts, cross-site requests, security headers: before any page runs
limits   how often one address may ask
pages    templates and what all of them share
public   the pages readers see and the links in their mails
capture  the mails that were caught instead of sent; on this machine alone
feeds    feeds, a raw application in front of everything else
"""
