"""What the sidecar does for the application on its health listener: probes, one scrape for both, the end of a Job.

The kubelet and a scraper have no identity, so at a captured port they would be turned away like anybody. They ask the
health port, which is not captured, and the sidecar asks the application on loopback.
"""
