"""What people see: pages and the JavaScript client."""
