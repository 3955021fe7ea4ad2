"""AWS: a bucket, a budget and a cluster that ends with its work, inside the European Union."""
