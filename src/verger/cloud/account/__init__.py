"""What is in an AWS account: region, roles, buckets, images."""
